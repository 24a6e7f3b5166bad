package tier

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/weircache/weir/internal/simtime"
)

// TestMain leaves the long tests to make test-long, unless -run or -skip chooses.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" {
		if err := flag.Set("test.skip", "^Test.*Long$"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// bubble runs f with virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	simtime.Test(t, f)
}
