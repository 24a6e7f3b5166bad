package tier

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A near copy in the front is tested at each read, like any other.
func TestFrontIsTested(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := &counter{}
		cfg := plain(ByKey(o.load))
		cfg.NearBytes, cfg.Freshness.NearTTL = 1<<20, 10*time.Second
		c := open(t, cfg)
		front := func(want string) {
			t.Helper()
			for range 3 {
				get(t, c, "k", want)
				c.near.Wait()
			}
			if b := c.near.InFront("k"); b == nil || b.value != want {
				t.Fatalf("the front has %v", b)
			}
		}
		front("k#1")
		before := c.Stats().Near
		for range 100 {
			get(t, c, "k", "k#1")
		}
		if n := c.Stats().Near - before; n != 100 {
			t.Errorf("%d near hits, want 100", n)
		}
		o.want(t, 1)
		if err := c.Invalidate(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		front("k#2")
		time.Sleep(10*time.Second - 1)
		a := read(t, c, "k", AnyAge)
		if a.Source != SourceNear {
			t.Errorf("%+v, want a near copy", a)
		}
		time.Sleep(time.Nanosecond) // the lease ends
		if a := read(t, c, "k", AnyAge); a.Source != SourceOwned {
			t.Errorf("%+v past NearTTL, want the owner's copy", a)
		}
		front("k#2")
		time.Sleep(10 * time.Second)
		near := c.Stats().Near
		get(t, c, "k", "k#2")
		if c.Stats().Near != near {
			t.Error("Get took a near copy past NearTTL")
		}
		front("k#2")
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Get(ended, "k"); !errors.Is(err, context.Canceled) {
			t.Errorf("%v with a context that has ended", err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		getErr(t, c, "k", ErrClosed)
	})
}
