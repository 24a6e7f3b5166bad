package peer

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(benchRole) != "" {
		os.Exit(benchServer())
	}
	goleak.VerifyTestMain(patient{m})
}

// patient waits for memberlist's last probes, which outlast Close by up to two seconds,
// before goleak looks.
type patient struct{ m *testing.M }

func (p patient) Run() int {
	code := p.m.Run()
	for end := time.Now().Add(4 * time.Second); goleak.Find() != nil && time.Now().Before(end); {
	}
	return code
}
