package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// TestWhole checks that a node has a connection to each member that it talks to and to no other member.
func TestWhole(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := whole(ctx, 4, options{rest: 100 * time.Millisecond, load: 200 * time.Millisecond, rate: 200, say: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if r.idleConnections != 0 {
		t.Errorf("%d data connections, and nobody has asked for anything", r.idleConnections)
	}
	if r.connections != 3 || r.invalidations != 40 || r.sender < 2*r.receiver || r.receiver == 0 {
		t.Errorf("%+v", r)
	}
}

func TestCaches(t *testing.T) {
	r, err := boarded(t.Context(), 5, options{rest: 10 * time.Millisecond, load: 100 * time.Millisecond, rate: 200, say: t.Logf})
	if err != nil || r.invalidations != 20 || r.calls < 4 || r.sender == 0 || r.senderIn == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRun(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), []string{"-whole", "", "-caches", "2,3", "-rest", "10ms", "-load", "50ms", "-rate", "100"}, &out)
	if text := out.String(); err != nil || !strings.Contains(text, "| 2 caches | 3 caches |\n") {
		t.Errorf("%v\n%s", err, text)
	}
	for _, bad := range []string{"x", "1", "-3", "99999"} {
		if err := run(t.Context(), []string{"-whole", bad}, &out); err == nil {
			t.Errorf("%q is no number of members", bad)
		}
	}
}
