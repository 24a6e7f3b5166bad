package tier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// A value's own stale windows shorten the contract's and never lengthen them.
func TestSetStale(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, broken := 0, false
		cfg := plain(func(_ context.Context, f *Fill[string]) (string, error) {
			if broken {
				return "", errors.New("down")
			}
			n++
			switch f.Key {
			case "never":
				f.SetStale(Stale{})
			case "shorter":
				f.SetStale(Stale{WhileRevalidate: 5 * time.Second, IfError: 20 * time.Second})
			case "longer":
				f.SetStale(Stale{WhileRevalidate: time.Hour, IfError: 1<<63 - 1})
			case "negative":
				f.SetStale(Stale{WhileRevalidate: -time.Hour, IfError: -1 << 63})
			}
			return fmt.Sprint(n), nil
		})
		cfg.Freshness = Freshness{TTL: 100 * time.Second, StaleWhileRevalidate: 10 * time.Second, StaleIfError: 40 * time.Second, ErrorTTL: -1, NearTTL: -1, Jitter: -1, RefreshAhead: -1}
		c, loaded := open(t, cfg), time.Now()
		for i, key := range []string{"never", "shorter", "longer", "negative"} {
			get(t, c, key, fmt.Sprint(i+1))
		}
		broken = true
		for _, step := range []struct {
			at    time.Duration // since the loads
			stale []string      // keys that are still served
		}{
			{100*time.Second - 1, []string{"never", "shorter", "longer", "negative"}}, // fresh
			{100 * time.Second, []string{"shorter", "longer"}},
			{120*time.Second - 1, []string{"shorter", "longer"}},
			{120 * time.Second, []string{"longer"}},
			{140*time.Second - 1, []string{"longer"}},
			{140 * time.Second, nil},
		} {
			time.Sleep(step.at - time.Since(loaded))
			for _, key := range []string{"never", "shorter", "longer", "negative"} {
				if _, err := c.Get(t.Context(), key); (err == nil) != slices.Contains(step.stale, key) {
					t.Errorf("%s after %v: %v", key, step.at, err)
				}
			}
		}
	})
}
