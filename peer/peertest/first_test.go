package peertest

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// sighting says how soon a run shows its first violation.
type sighting struct {
	Guarantee string
	After     time.Duration // of virtual time, since the run began
	Reads     int           // how many reads had ended by then
}

// first returns the sighting of the earliest of the violations, or nil if there are none. The run began at began.
func (h *History) first(list []Violation, began time.Time) *sighting {
	if len(list) == 0 {
		return nil
	}
	v := list[0]
	for _, other := range list {
		if other.At < v.At {
			v = other
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s, last := &sighting{Guarantee: v.Guarantee}, began
	event := func(stamp uint64, at time.Time) {
		if stamp != 0 && stamp <= v.At && at.After(last) {
			last = at
		}
	}
	for _, l := range h.loads {
		event(l.Began, l.BeganAt)
		event(l.Ended, l.EndedAt)
	}
	for _, r := range h.reads {
		event(r.Began, r.BeganAt)
		event(r.Ended, r.EndedAt)
		if r.Ended <= v.At {
			s.Reads++
		}
	}
	s.After = last.Sub(began)
	return s
}

// controlOf returns the control with a name, for a seed.
func controlOf(t *testing.T, name string, seed uint64) (o Options, p Plan, before func(*Cluster)) {
	t.Helper()
	for _, c := range brokenClusters() {
		if c.name != name {
			continue
		}
		if c.o.Seed = seed; c.before == nil {
			c.before = func(*Cluster) {}
		}
		return c.o, c.p, c.before
	}
	t.Fatalf("there is no control %q", name)
	return o, p, nil
}

// printControls prints the names of the controls and the guarantees that they break, for the module replay.
func printControls(t *testing.T) {
	t.Helper()
	var list [][2]string
	for _, c := range brokenClusters() {
		list = append(list, [2]string{c.name, c.broken})
	}
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("controls %s\n", b)
}

// TestFirst checks that the earliest violation counts, whichever guarantee it breaks and wherever the checker finds it.
func TestFirst(t *testing.T) {
	began := time.Unix(100, 0)
	at := func(s int64) time.Time { return began.Add(time.Duration(s) * time.Second) }
	read := func(stamp uint64, second int64, value string) *Read {
		return &Read{Key: "k", Began: stamp, Ended: stamp + 1, BeganAt: at(second), EndedAt: at(second + 1), Deadline: at(second + 9), Value: Value{Key: value, At: at(second).UnixNano()}}
	}
	h := &History{reads: []*Read{read(1, 1, "k"), read(3, 3, "other"), read(5, 5, "other"), read(7, 7, "other"), read(9, 9, "other")}}
	h.forwards = []*Read{{Key: "k", Began: 20}}
	list := h.Check(Rules{Turns: 1, Asks: 1, Patience: time.Hour})
	if len(list) != 4 || list[0].Guarantee != "G8" || list[1].At != 4 || list[2].At != 6 || list[3].At != 8 {
		t.Errorf("violations %v", list)
	}
	if s := h.first(list, began); *s != (sighting{"G10", 4 * time.Second, 2}) {
		t.Errorf("first %+v", s)
	}
	if s := h.first(nil, began); s != nil {
		t.Errorf("first %+v of none", s)
	}
}
