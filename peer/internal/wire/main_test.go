package wire_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/weircache/weir/internal/simtime"
)

func TestMain(m *testing.M) {
	if os.Getenv(benchRole) != "" {
		os.Exit(benchServer())
	}
	goleak.VerifyTestMain(m)
}

// bubble runs f with virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	simtime.Test(t, f)
}
