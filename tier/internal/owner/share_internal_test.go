package owner

import (
	"testing"
	"time"
)

// A joining node takes its share when all say that their loads fit. It waits for silent members for a limited time,
// and without limit for members whose loads do not fit.
func TestMayTake(t *testing.T) {
	const silentFor = 10 * time.Second
	for _, x := range []struct {
		words  []word
		waited time.Duration
		want   bool
	}{
		{nil, 0, true},
		{[]word{wordFits, wordFits}, 0, true},
		{[]word{wordFits, wordNone}, silentFor - 1, false},
		{[]word{wordFits, wordNone}, silentFor, true},
		{[]word{wordFits, wordBeyond}, time.Hour, false},
	} {
		if got := mayTake(x.words, x.waited, silentFor); got != x.want {
			t.Errorf("%v after %v: %v", x.words, x.waited, got)
		}
	}
}
