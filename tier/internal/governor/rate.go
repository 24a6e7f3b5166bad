package governor

import "time"

// bucket is a token bucket, for the rate of loads and for the budget of retries. Its methods return the next state
// and change nothing. The zero bucket is full.
type bucket struct {
	spent float64 // tokens missing from a full bucket
	at    int64   // the time of that state, ns
}

// fill returns the bucket at now, with rate tokens a second flowing in.
func (b bucket) fill(rate float64, now int64) bucket {
	if now > b.at {
		b.spent = max(b.spent-rate*float64(now-b.at)/float64(time.Second), 0)
		b.at = now
	}
	return b
}

// take takes one token, if the bucket has one. If not, again is when it will have one.
func (b bucket) take(rate, burst float64, now int64) (next bucket, ok bool, again int64) {
	b = b.fill(rate, now)
	const slack = 1e-6 // rounding must not cause waits of one more nanosecond, over and over
	if lack := b.spent + 1 - burst; lack > slack {
		return b, false, now + max(int64(min(lack/rate, 3600)*float64(time.Second)), int64(time.Microsecond))
	}
	b.spent++
	return b, true, 0
}

// earn puts n tokens back.
func (b bucket) earn(n float64) bucket {
	b.spent = max(b.spent-n, 0)
	return b
}
