package roster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

// books is a resolver that fails for the names that are down.
type books struct {
	hosts    map[string][]string
	services map[string][]string
	down     map[string]bool
}

func (b *books) LookupHost(_ context.Context, host string) ([]string, error) {
	return b.look(b.hosts, host)
}

func (b *books) LookupSRV(_ context.Context, name string) ([]string, error) {
	return b.look(b.services, name)
}

func (b *books) look(all map[string][]string, name string) ([]string, error) {
	if b.down[name] {
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	if found, ok := all[name]; ok {
		return found, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// finderOf returns a finder for the seeds in b. It shuffles by reversing.
func finderOf(b *books, seeds ...string) *finder {
	return &finder{network: b, fixed: seeds, shuffle: func(n int, swap func(i, j int)) {
		for i := range n / 2 {
			swap(i, n-1-i)
		}
	}}
}

// found returns as text what f finds, and which seeds it could not find.
func found(t *testing.T, f *finder) string {
	t.Helper()
	addrs, failed := f.find(t.Context())
	text := fmt.Sprint(addrs)
	for _, x := range failed {
		text += " " + x.what + "!"
	}
	return text
}

// TestFindOrder checks that the targets of a service keep their order, that the seeds alternate, and that bad targets are
// ignored.
func TestFindOrder(t *testing.T) {
	b := &books{
		hosts: map[string][]string{"a.test": {"10.0.0.1", "fd00::1"}, "b.test": {"10.0.0.2"}, "c.test": {"10.0.0.3"}},
		services: map[string][]string{
			"_w._tcp.one":  {"b.test:2", "a.test:1", "10.0.0.9:9", "gone.test:1", "a.test:0", "nonsense", ":7946", "_w._tcp.one", "c.test:3"},
			"_w._tcp.none": {},
		},
	}
	f := finderOf(b, "_w._tcp.one", "_w._tcp.none", "_w._tcp.unknown", "c.test:3", "gone.test:4", "c.test:3")
	if got, want := found(t, f), "[10.0.0.3:3 10.0.0.2:2 [fd00::1]:1 10.0.0.1:1 10.0.0.9:9]"; got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}

// TestFindLast checks that while a resolver fails, a seed's last known addresses are used, and that a name that no longer
// exists has no addresses.
func TestFindLast(t *testing.T) {
	b := &books{
		hosts:    map[string][]string{"a.test": {"10.0.0.1"}, "b.test": {"10.0.0.2"}},
		services: map[string][]string{"_w._tcp.one": {"a.test:1", "b.test:2"}},
		down:     map[string]bool{"b.test": true},
	}
	f := finderOf(b, "_w._tcp.one", "b.test:7")
	expect := func(want string) {
		t.Helper()
		if got := found(t, f); got != want {
			t.Errorf("found %s, want %s", got, want)
		}
	}
	expect("[10.0.0.1:1] seed b.test:2! seed b.test:7!") // no last known addresses yet
	b.down = nil
	expect("[10.0.0.2:7 10.0.0.1:1 10.0.0.2:2]")
	for range 3 {
		b.down = map[string]bool{"_w._tcp.one": true, "a.test": true, "b.test": true}
		expect("[10.0.0.2:7 10.0.0.1:1 10.0.0.2:2] seed _w._tcp.one! seed a.test:1! seed b.test:2! seed b.test:7!")
	}
	delete(b.hosts, "a.test")
	b.down = map[string]bool{"_w._tcp.one": true}
	expect("[10.0.0.2:7 10.0.0.2:2] seed _w._tcp.one!")
	b.services, b.down = nil, nil
	expect("[10.0.0.2:7]")
	b.down = map[string]bool{"_w._tcp.one": true}
	expect("[10.0.0.2:7] seed _w._tcp.one!") // it had no targets
	if len(f.addrs) != 1 || len(f.targets) != 1 {
		t.Errorf("it remembers %v and %v", f.addrs, f.targets)
	}
}

// TestFindMany checks that for a service with many targets the first ones are resolved, and in every second attempt the
// next ones of all, so that each gets its turn in whatever order the shuffle and the resolver put them.
func TestFindMany(t *testing.T) {
	var targets []string
	for i := range 3*lookups - 1 {
		targets = append(targets, fmt.Sprintf("10.1.0.%d:1", i))
	}
	b := &books{services: map[string][]string{"_w._tcp.many": targets}}
	f := finderOf(b, "_w._tcp.many")
	first, _ := f.find(t.Context())
	if len(first) != lookups || first[0].String() != targets[0] || first[lookups-1].String() != targets[lookups-1] {
		t.Errorf("first %v", first)
	}
	seen := make(map[string]int)
	for range 3 {
		f.continuing = f.partial
		other, _ := f.find(t.Context())
		for _, a := range other {
			seen[a.String()]++
		}
		f.continuing = false
		if again, _ := f.find(t.Context()); !slices.Equal(again, first) {
			t.Errorf("those that come first are %v", again)
		}
		b.services["_w._tcp.many"] = slices.Clone(targets)
	}
	if len(seen) != len(targets) {
		t.Errorf("%d of %d targets had their turn in three attempts", len(seen), len(targets))
	}
	b.services["_w._tcp.many"] = targets[:lookups]
	if _, _ = f.find(t.Context()); len(f.targetTurn) > 0 {
		t.Errorf("it remembers %v", f.targetTurn)
	}
}

// TestDiscoverAnswers checks that the good seeds of a Discover answer are used, and that errors describe the others.
func TestDiscoverAnswers(t *testing.T) {
	lots := slices.Repeat([]string{"10.0.0.5:1"}, 2*maxDiscovered)
	if err := few(slices.Repeat([]error{errors.New("x")}, fewErrors)); strings.Contains(err.Error(), "more") {
		t.Errorf("a few errors: %v", err)
	}
	for i, x := range []struct {
		seeds       []string
		err         error
		want, wrong string
	}{
		{seeds: []string{"10.0.0.1:1", "10.0.0.2:1"}, want: "[10.0.0.1:1 10.0.0.2:1]"},
		{err: errors.New("down"), want: "[10.0.0.1:1 10.0.0.2:1]", wrong: "down"},
		{seeds: []string{"bad"}, want: "[10.0.0.1:1 10.0.0.2:1]", wrong: "host:port"},
		{seeds: []string{"10.0.0.3:1", "bad"}, want: "[10.0.0.3:1]", wrong: "host:port"},
		{want: "[]"},
		{seeds: lots[:maxDiscovered], want: fmt.Sprint(lots[:maxDiscovered])},
		{seeds: slices.Repeat([]string{"bad"}, fewErrors+1), want: "[10.0.0.1:1 10.0.0.2:1]", wrong: "and 1 more"},
		{seeds: append(lots, "10.0.0.6:1"), want: fmt.Sprint(lots[:maxDiscovered]), wrong: "the first 1024 count"},
		{seeds: []string{strings.Repeat("x", 1<<20) + ":1", "10.0.0.1:1"}, want: "[10.0.0.1:1]", wrong: "the limit is"},
		{seeds: slices.Repeat([]string{"bad"}, 50), want: "[10.0.0.1:1]", wrong: "and 46 more"},
	} {
		d := discovery{call: func(context.Context) ([]string, error) { return x.seeds, x.err }, last: []string{"10.0.0.1:1", "10.0.0.2:1"}}
		if i > 7 {
			d.last = d.last[:1]
		}
		last, err := d.ask(t.Context())
		if fmt.Sprint(last) != x.want || (err == nil) != (x.wrong == "") || err != nil && (!strings.Contains(err.Error(), x.wrong) || len(err.Error()) > 1000) {
			t.Errorf("answer %d: %.100v, %.1000v", i, last, err)
		}
	}
}

// TestFindExactly checks that a service with as many targets as one attempt resolves is resolved entirely, and that an
// attempt that finds nothing continues nowhere.
func TestFindExactly(t *testing.T) {
	b := &books{services: map[string][]string{"_w._tcp.many": nil}}
	f := finderOf(b, "_w._tcp.many")
	f.continuing = true
	if got := found(t, f); got != "[]" || f.partial {
		t.Errorf("found %s; partial: %v", got, f.partial)
	}
	for i := range lookups {
		b.services["_w._tcp.many"] = append(b.services["_w._tcp.many"], fmt.Sprintf("10.1.0.%d:1", i))
	}
	if addrs, _ := f.find(t.Context()); len(addrs) != lookups || f.partial {
		t.Errorf("found %d; partial: %v", len(addrs), f.partial)
	} else if addrs[0].String() != "10.1.0.0:1" { // the first one after the shuffle is the last one before
		t.Errorf("it begins at %s, not after the one that the shuffle chose", addrs[0])
	}
}

// TestFindKeepsOthers checks that the addresses of targets that an attempt does not look up are kept for later ones.
func TestFindKeepsOthers(t *testing.T) {
	b := &books{hosts: make(map[string][]string), services: make(map[string][]string), down: make(map[string]bool)}
	const service = "_w._tcp.many"
	for i := range 2 * lookups {
		name := fmt.Sprintf("h%d.test", i)
		b.hosts[name] = []string{fmt.Sprintf("10.1.0.%d", i)}
		b.services[service] = append(b.services[service], name+":1")
	}
	f := finderOf(b, service)
	first, _ := f.find(t.Context())
	f.continuing = true
	f.find(t.Context())
	f.continuing = false
	for name := range b.hosts {
		b.down[name] = true
	}
	if again, failed := f.find(t.Context()); !slices.Equal(again, first) || len(failed) != lookups {
		t.Errorf("found %v, before it was %v; %d failures", again, first, len(failed))
	}
}
