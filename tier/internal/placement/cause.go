package placement

// Cause says why a fill was needed, as the ledger of misses counts it.
type Cause uint8

const (
	Cold         Cause = iota // no trace of an earlier copy
	Expired                   // the copy was past soft or hard expiry
	Evicted                   // the copy was evicted to make room
	Fenced                    // the copy was invalidated
	Moved                     // the key recently had another owner, which is still a member
	OwnerLost                 // the key's owner is gone, or could not be reached
	CutOff                    // this node was cut off from the owner's side
	RefreshAhead              // the copy was fresh: a refresh before soft expiry
	Drill                     // a drill wanted a miss
	Causes                    // how many there are
)

// CauseNames are the causes as labels.
var CauseNames = [Causes]string{"cold", "expired", "evicted", "fenced", "moved", "owner_lost", "isolated", "refresh_ahead", "drill"}
