package tier

import (
	"context"
	"testing"
	"time"
)

func TestInspectKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := Config[string]{
			Loader:    ByKey(func(_ context.Context, key string) (string, error) { return "value of " + key, nil }),
			Freshness: Freshness{TTL: time.Minute, StaleIfError: time.Hour, NearTTL: 10 * time.Second, Jitter: -1},
		}
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(t.Context())
		h := newHandler(c)
		copies := func(key string) []Copy { return h.InspectKey(key).([]Copy) }
		if got := copies("k"); got == nil || len(got) != 0 {
			t.Errorf("before it was read: %v", got)
		}
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		got := copies("k")
		if len(got) != 2 || got[0].Tier != "near" || got[0].Age != 3 || got[0].Left != 7 || got[1].Tier != "owned" || got[1].Age != 3 || got[1].Fresh != 57 || got[1].Bytes == 0 {
			t.Errorf("%+v", got)
		}
		if s := c.Stats(); s.Near != 0 {
			t.Errorf("looking counted as %d reads", s.Near)
		}
		if token, _, _, err := h.InvalidateFor(t.Context(), []string{"k"}, nil, false, 0); err != nil || token == "" {
			t.Fatal(err)
		}
		if got := copies("k"); len(got) != 0 {
			t.Errorf("after the invalidation: %+v", got)
		}
		present, loaded, notFound, failed, err := h.WarmFor(t.Context(), []string{"k", "k2", "k2", ""})
		if err != nil || present != 0 || loaded != 2 || notFound != 0 || len(failed) != 1 || failed[""] == nil {
			t.Errorf("warmed: %d present, %d loaded, %d not found, %v failed, %v", present, loaded, notFound, failed, err)
		}
	})
}
