package peer

import "time"

// What these tests expect of the member list, whose own constants are in package roster.
const (
	pushPullInterval = 15 * time.Second
	streamTimeout    = 3 * time.Second
	healthLevels     = 4
	leaveWait        = time.Second
	settleTime       = 2 * time.Second
	proofEvery       = 5 * time.Second
	endedGrace       = 10 * time.Second
	discoverLimit    = 10 * time.Second
	discoverWait     = 2 * time.Second
	discoverGrace    = time.Second
	lookups          = 32
	seedsAtOnce      = 8
	seedsPerRound    = 64
	tableFactor      = 2
)
