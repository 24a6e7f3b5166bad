package roster_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/weircache/weir/internal/simtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs f with virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	simtime.Test(t, f)
}
