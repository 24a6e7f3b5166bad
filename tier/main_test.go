package tier

import (
	"flag"
	"runtime"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

// TestMain leaves the long tests to make test-long, unless -run or -skip chooses.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" {
		flag.Set("test.skip", "^Test.*Long$")
	}
	goleak.VerifyTestMain(m)
}

// bubble runs f in a bubble with virtual time, on one processor: the race detector of Go 1.26
// crashes if two goroutines of a bubble look at expired timers at the same moment
// (https://go.dev/issue/78156).
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}
