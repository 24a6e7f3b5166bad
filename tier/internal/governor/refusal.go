package governor

import (
	"time"
)

// Reason says why the governor rejected a fill.
type Reason uint8

const (
	None        Reason = iota // it did not reject the fill
	NoShare                   // this member has no part of the cap
	QueueFull                 // the queue is full
	QueueDelay                // the ticket waited too long in an overloaded queue
	Deadline                  // none of the waiting callers could have been served in time
	BreakerOpen               // the breaker is open
	TimedOut                  // no permit came within Limits.Timeout, for callers without a deadline
	KeyBusy                   // earlier loads of the key have not returned
	Reasons                   // how many there are
)

var shedNames = [Reasons]string{"other", "no_share", "queue_full", "queue_delay", "deadline", "breaker", "timeout", "key_busy"}

// Name returns the reason as a label.
func (r Reason) Name() string { return shedNames[r] }

// Text returns the reason as a message.
func (r Reason) Text() string { return shedTexts[r] }

var shedTexts = [Reasons]string{
	None:        "no reason was given",
	NoShare:     "this member has no share of Origin.Concurrency: it is below the number of members",
	QueueFull:   "the queue for the origin is full",
	QueueDelay:  "the queue for the origin is overloaded",
	Deadline:    "the queue for the origin is longer than the caller's deadline",
	BreakerOpen: "the origin fails and is left alone for a while",
	TimedOut:    "no permit to read the origin came in time",
	KeyBusy:     "earlier loads of the key have not returned",
}

// A Refusal says that a permit was not granted, and why.
type Refusal struct {
	Why   Reason
	After time.Duration // an estimate of when a permit is likely
}

// Error tells people the reason. A cache returns an *OverloadedError instead, which also says when to retry.
func (r *Refusal) Error() string { return "weir: no permit to read the origin: " + r.Why.Text() }

// refusal returns a Refusal with an estimate of at least a millisecond.
func refusal(why Reason, after time.Duration) *Refusal {
	return &Refusal{why, max(after, time.Millisecond)}
}
