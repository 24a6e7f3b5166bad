package tier

// cause says why a fill was needed, as the ledger of misses counts it.
type cause uint8

const (
	causeCold         cause = iota // no trace of an earlier copy
	causeExpired                   // the copy was past soft or hard expiry
	causeEvicted                   // the copy had to make room for others
	causeFenced                    // the copy was invalidated
	causeMoved                     // the key lately had another owner, who is still a member
	causeOwnerLost                 // the key's owner is gone, or could not be reached
	causeIsolated                  // this node was cut off from the owner's side
	causeRefreshAhead              // the copy was fresh: a refresh before soft expiry
	causeDrill                     // a drill wanted a miss
	causes
)

var causeNames = [causes]string{"cold", "expired", "evicted", "fenced", "moved", "owner_lost", "isolated", "refresh_ahead", "drill"}
