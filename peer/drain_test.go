package peer

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/testlog"
)

// drainer counts how often it is told that its node leaves.
type drainer struct {
	codec.Handler
	told *atomic.Int32
}

func (d drainer) Drain(context.Context) { d.told.Add(1) }

// TestLeaveDrains checks that registered handlers are told when their node leaves. Handlers that were closed before cannot
// be told, and the log says so, because it looks like a graceful end and costs the origin as many loads as a crash.
func TestLeaveDrains(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		var log testlog.Log
		n1 := simulated(t, world, 1, Config{})
		n2 := simulated(t, world, 2, Config{Join: []string{"10.0.0.1:7946"}, Logger: log.Logger()})
		awaitNames(t, "n1 n2", n1, n2)
		var told atomic.Int32
		for _, namespace := range []string{"kept", "closed", "again"} {
			unregister, err := n2.Register(namespace, 1, drainer{told: &told})
			if err != nil {
				t.Fatal(err)
			}
			if namespace != "kept" {
				unregister()
			}
		}
		if _, err := n2.Register("again", 1, drainer{told: &told}); err != nil {
			t.Fatal(err)
		}
		if err := n2.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := told.Load(); n != 2 {
			t.Errorf("%d namespaces were told, want 2", n)
		}
		if !strings.Contains(log.String(), "namespaces=[closed]") {
			t.Errorf("the log does not name the closed one:\n%s", log.String())
		}
	})
}
