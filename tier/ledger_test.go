package tier

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLedger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := plain(func(_ context.Context, f *Fill[string]) (string, error) {
			done := f.Step("db")
			time.Sleep(100 * time.Millisecond)
			if f.Key == "bad" {
				done(errDown)
				return "", errDown
			}
			done(nil)
			func() { defer f.Step("rank")() }()
			return "v", nil
		})
		c := open(t, cfg)
		if _, err := json.Marshal(c.Stats()); err != nil { // even without any load
			t.Error(err)
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { _, _ = c.Get(t.Context(), "a") })
		}
		wg.Go(func() { _, _ = c.Get(t.Context(), "bad") })
		wg.Go(func() { // its caller leaves before it ends
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, _ = c.Get(ctx, "doomed")
		})
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if s := c.Stats().Ledger.OriginSeconds; math.Abs(s-0.15) > 1e-6 { // running loads count
			t.Errorf("%v origin-seconds", s)
		}
		wg.Wait()
		time.Sleep(5 * time.Second)
		s := c.Stats()
		l := s.Ledger
		if l.Doomed != 1 || math.Abs(l.OriginSeconds-0.3) > 1e-6 || math.Abs(l.CallersPerLoad-11.0/3) > 0.01 ||
			math.Abs(l.OriginBusy-0.3/5.1) > 0.02 || math.Abs(l.LoadRate-3/5.1) > 0.1 || math.Abs(l.ReadRate-12/5.1) > 0.5 {
			t.Errorf("%+v", l)
		}
		if s.Steps["db"].Calls != 3 || s.Steps["db"].Errors != 1 || s.Steps["rank"].Calls != 2 || s.Steps["rank"].Errors != 0 {
			t.Errorf("%+v", s.Steps)
		}
		n := int64(0)
		for _, b := range l.Costs {
			n += b.Loads
		}
		if n != 3 {
			t.Errorf("%+v", l.Costs)
		}
		for i := range 200 { // a steady origin: one load runs all the time
			_, _ = c.Get(t.Context(), fmt.Sprint(i))
		}
		if l := c.Stats().Ledger; math.Abs(l.OriginBusy-1) > 0.05 || math.Abs(l.LoadRate-10) > 0.5 {
			t.Errorf("%+v", l)
		}
		if _, err := json.Marshal(c.Stats()); err != nil {
			t.Error(err)
		}
	})
}
