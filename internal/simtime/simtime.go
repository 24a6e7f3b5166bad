package simtime

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Test runs f in a synctest bubble on one processor: the race detector of Go 1.26 crashes if two goroutines of a
// bubble look at expired timers at the same moment (https://go.dev/issue/78156).
func Test(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}
