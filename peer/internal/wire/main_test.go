package wire

import (
	"os"
	"runtime"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(benchRole) != "" {
		os.Exit(benchServer())
	}
	goleak.VerifyTestMain(m)
}

// bubble runs f in a bubble with virtual time, on one processor, because the race detector of Go 1.26 crashes if two
// goroutines of a bubble look at expired timers at the same moment (https://go.dev/issue/78156).
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}
