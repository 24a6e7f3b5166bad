package peer

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weircache/weir/internal/simtime"
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

// bubble runs f with virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	simtime.Test(t, f)
}
