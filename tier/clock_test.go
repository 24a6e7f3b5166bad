package tier

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/owner"
)

// A copy ages while the machine is suspended: a copy past its hard expiry is not served after the machine resumes.
func TestCopiesAgeWhileTheMachineIsSuspended(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var slept atomic.Int64
		o := slow(0)
		cfg := plain(ByKey(o.load))
		cfg.NearBytes = MinBytes
		cfg.Freshness.NearTTL = time.Hour
		cfg.Freshness.TTL = time.Hour
		cfg.suspended = func() (int64, bool) { return int64(7*time.Hour) + slept.Load(), true } // the machine has slept before
		c := open(t, cfg)
		get(t, c, "k", "k#1")
		c.near.Wait()
		_ = pause(background, 10*time.Second)
		slept.Store(int64(time.Minute))
		_ = pause(background, 2*owner.SweepEvery)
		a, err := c.Read(background, "k", ReadOptions{MaxAge: AnyAge})
		if err != nil || a.Source != SourceNear || a.Age != time.Minute+10*time.Second+2*owner.SweepEvery {
			t.Errorf("%+v, %v", a, err)
		}
		slept.Store(int64(2 * time.Hour))
		_ = pause(background, 2*owner.SweepEvery)
		if a, err := c.Read(background, "k", ReadOptions{MaxAge: AnyAge, NoFill: true}); !errors.Is(err, ErrNotCached) {
			t.Errorf("%+v, %v", a, err)
		}
		get(t, c, "k", "k#2")
		slept.Store(0) // the clocks are read one after the other, so this may be lower; nothing may become younger
		now := c.own.Clock.Now()
		_ = pause(background, 2*owner.SweepEvery)
		if d := c.own.Clock.Now() - now; d != int64(2*owner.SweepEvery) {
			t.Errorf("the clock went on by %v", time.Duration(d))
		}
		slept.Store(int64(2*time.Hour) + clock.SleptLeast/2) // the error that reading the clocks may cause
		_ = pause(background, 2*owner.SweepEvery)
		if d := c.own.Clock.Now() - now; d != int64(4*owner.SweepEvery) {
			t.Errorf("the clock went on by %v", time.Duration(d))
		}
	})
}
