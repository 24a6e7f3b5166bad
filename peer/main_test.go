package peer

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(patient{m})
}

// patient waits for memberlist's last probes, which outlast Close by up to two seconds, before goleak checks.
type patient struct{ m *testing.M }

func (p patient) Run() int {
	code := p.m.Run()
	for end := time.Now().Add(4 * time.Second); goleak.Find() != nil && time.Now().Before(end); {
	}
	return code
}

// bubble runs f in a bubble with virtual time, on one processor, because the race detector of Go 1.26 crashes if two
// goroutines of a bubble look at expired timers at the same moment (https://go.dev/issue/78156).
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}
