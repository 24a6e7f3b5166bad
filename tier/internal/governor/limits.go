package governor

import "time"

// Limits say how much may be asked of the origin. All are set: there are no defaults.
type Limits struct {
	Concurrency    int           // the most loads at once in the whole cluster
	MinConcurrency int           // the floor of the adaptive limit; equal to Concurrency: there is none
	Rate           float64       // the most loads a second that the whole cluster begins; 0: no limit
	Burst          int           // how many loads the whole cluster may begin at once after it was idle, with Rate
	Timeout        time.Duration // how long a load may take, and a ticket without a deadline may wait
	Queue          int           // how many tickets may wait here
	NewestFirst    bool          // tickets with a deadline are rejected by QueueInterval and QueueTarget too
	QueueInterval  time.Duration // a queue that was not empty for so long is overloaded; below 0: never
	QueueTarget    time.Duration // how long a ticket may wait in an overloaded queue
	Breaker        BreakerRules
	RetryBudget    float64 // retries for each load admitted, as a fraction; below 0: none
}

// RetryReserve is the largest number of retries in hand, so that an origin that is rarely asked has some too.
const RetryReserve = 10

// Snapshot is a governor's state at a moment.
type Snapshot struct {
	Share   int // this node's part of Concurrency
	Limit   int // of that, what the adaptive limit leaves
	InUse   int // permits held by loads
	Peak    int // the most held at once
	Waiting int // tickets that wait for one, loads that come back from a nested read included

	WaitingBy       map[string]int // by class
	Overloaded      bool           // a queue has not been empty for QueueInterval
	Breaker         string         // closed, open or half_open
	BreakerOpenings int64          // how often it has opened
	LoadSeconds     float64        // the mean duration of recent loads
	RetriesLeft     int            // in the budget now
	OriginSeconds   float64        // permits in use, integrated over time
}
