package codec

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seeded returns an rng whose seed the test prints.
func seeded(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// allocated returns how many bytes f allocates: the minimum of three runs, because the allocations of other
// goroutines count as well.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	for range 3 {
		least = min(least, allocatedOnce(f))
	}
	return least
}

func allocatedOnce(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// atMost fails the test if f allocates more than most bytes.
func atMost(t testing.TB, most uint64, f func()) {
	t.Helper()
	if allocatedOnce(f) <= most {
		return
	}
	if n := allocated(f); n > most { // in three runs, so it was not another goroutine
		t.Errorf("%d bytes allocated, the bound is %d", n, most)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want one that wraps %v", err, want)
	}
}

func ok[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
