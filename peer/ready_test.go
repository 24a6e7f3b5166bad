package peer

import (
	"testing"
)

// due is a handler that still has positions to compare.
type due struct {
	counting
	names []string
	done  int
}

func (d *due) Warming() (done, total int, finished bool) { return d.done, 20, d.done == 20 }

func (d *due) PositionsDue() []string { return d.names }

func TestReadyWaitsForPositions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := simulated(t, newMemNet(), 1, Config{})
		if err := n.Ready(); err != nil {
			t.Error(err)
		}
		d := &due{newCounting(), []string{"n3", "n2", "n3"}, 20}
		if _, err := n.Register("product", 1, d); err != nil {
			t.Fatal(err)
		}
		const want = "waiting for: positions with n2, n3"
		if err := n.Ready(); err == nil || err.Error() != "peer: not ready: "+want {
			t.Errorf("%v", err)
		}
		if code, body := get(n.Handler(), "/readyz"); code != 503 || body != want+"\n" {
			t.Errorf("readyz: %d %q", code, body)
		}
		if s := n.Stats().Node; s.Ready || s.Reason != want {
			t.Errorf("stats: %v %q", s.Ready, s.Reason)
		}
		d.names = []string{"a", "b", "c", "d", "e", "f", "g"}
		if got := n.unready(); got != "waiting for: positions with a, b, c, d, e and 2 more" {
			t.Errorf("%q", got)
		}
		d.names = nil
		if err := n.Ready(); err != nil {
			t.Error(err)
		}
		if code, body := get(n.Handler(), "/readyz"); code != 200 || body != "ok\n" {
			t.Errorf("readyz: %d %q", code, body)
		}
		d.done = 7 // reported, but not waited for
		if code, body := get(n.Handler(), "/readyz"); code != 200 || body != "ok\nwarming: product, 7 of 20 keys\n" {
			t.Errorf("readyz: %d %q", code, body)
		}
	})
}
