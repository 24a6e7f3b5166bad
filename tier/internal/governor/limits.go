package governor

import "time"

// Limits says how much may be asked of the origin. All fields must be set: none has a default.
type Limits struct {
	Concurrency    int           // the most loads at once in the whole cluster
	MinConcurrency int           // the floor of the adaptive limit; equal to Concurrency: the limit never drops
	Rate           float64       // the most loads a second that the whole cluster begins; 0: no limit
	Burst          int           // with Rate: how many loads the whole cluster may begin at once after being idle
	Timeout        time.Duration // how long a load may take, and a ticket without a deadline may wait
	Queue          int           // how many tickets may wait here
	NewestFirst    bool          // reject tickets with a deadline by QueueInterval and QueueTarget as well
	QueueInterval  time.Duration // a queue that was not empty for this long is overloaded; below 0: never
	QueueTarget    time.Duration // how long a ticket may wait in an overloaded queue
	Breaker        BreakerRules
	RetryBudget    float64 // retries for each load admitted, as a fraction; below 0: none
}

// RetryReserve is the largest number of retries in hand, so that an origin that is rarely asked has some as well.
const RetryReserve = 10

// Snapshot is the state of a governor at one moment.
type Snapshot struct {
	Share   int // this node's part of Concurrency
	Limit   int // what the adaptive limit leaves of the share
	InUse   int // permits held by loads
	Peak    int // the most held at once
	Waiting int // tickets that wait for a permit, including loads that come back from a nested read

	WaitingBy       map[string]int // by class
	Overloaded      bool           // a queue has not been empty for QueueInterval
	Breaker         string         // closed, open or half_open
	BreakerOpenings int64          // how often it has opened
	LoadSeconds     float64        // the mean duration of recent loads
	RetriesLeft     int            // retries left in the budget
	OriginSeconds   float64        // permits in use, integrated over time
}
