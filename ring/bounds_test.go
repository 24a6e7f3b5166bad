package ring

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestLimitsOfConfig checks that each limit is exact: a value at the limit is accepted, one beyond it is
// rejected.
func TestLimitsOfConfig(t *testing.T) {
	fine := Config{Partitions: 1, Load: 1, Replicas: 1}
	if err := fine.check(); err != nil {
		t.Errorf("the least of everything: %v", err)
	}
	if err := (Config{Partitions: 65535, Load: 100, Replicas: 1000}).check(); err != nil {
		t.Errorf("the most of everything: %v", err)
	}
	for name, change := range map[string]func(c *Config){
		"Partitions is 0":     func(c *Config) { c.Partitions = 0 },
		"Partitions is 65536": func(c *Config) { c.Partitions = 65536 },
		"Load is 0.99":        func(c *Config) { c.Load = 0.99 },
		"Load is 100.5":       func(c *Config) { c.Load = 100.5 },
		"Load is NaN":         func(c *Config) { c.Load = math.NaN() },
		"Replicas is 0":       func(c *Config) { c.Replicas = 0 },
		"Replicas is 1001":    func(c *Config) { c.Replicas = 1001 },
	} {
		c := fine
		change(&c)
		if err := c.check(); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimitsOfMembers(t *testing.T) {
	cfg := Config{Partitions: 3}
	if _, err := New(cluster(3), cfg); err != nil {
		t.Errorf("as many members as partitions: %v", err)
	}
	if _, err := New(cluster(4), cfg); !errors.Is(err, ErrTooManyMembers) {
		t.Errorf("one member more than partitions: %v", err)
	}
	for _, c := range []struct {
		name, zone int
		ok         bool
	}{{MaxName, MaxZone, true}, {MaxName + 1, 0, false}, {0, 0, false}, {1, MaxZone + 1, false}} {
		m := Member{Name: strings.Repeat("n", c.name), Zone: strings.Repeat("z", c.zone)}
		if _, err := New([]Member{m}, cfg); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("a name of %d bytes and a zone of %d: %v", c.name, c.zone, err)
		}
	}
}

// TestViewsOfOneAndTwo checks that the smallest views behave like all others.
func TestViewsOfOneAndTwo(t *testing.T) {
	one := mustNew(t, cluster(1), Config{})
	name := one.Members()[0].Name
	one.Prepare(name)
	if one.without[0].heirs != nil {
		t.Error("a view of one prepares for the loss of it")
	}
	if _, ok := one.Successor("k"); ok {
		t.Error("a member alone has a successor")
	}
	if _, ok := one.Heir("k"); ok {
		t.Error("a member alone has an heir")
	}
	if got := one.Successors("k", 1); got != nil {
		t.Errorf("a member alone has the successors %v", got)
	}
	if got := one.Share(name); got != 1 {
		t.Errorf("the share of a member alone is %v", got)
	}
	if m, ok := one.Member(name); !ok || m.Name != name {
		t.Errorf("Member(%q) = %v, %v", name, m, ok)
	}

	two := mustNew(t, cluster(2), Config{})
	two.Prepare("nobody")
	two.Prepare(two.Members()[0].Name)
	if two.without[0].heirs == nil || two.without[1].heirs != nil {
		t.Error("the first of two is not prepared for, or the second is")
	}
	for _, key := range keys()[:50] {
		other := two.Members()[1-two.OwnerIndex(key)]
		if m, ok := two.Successor(key); !ok || m != other {
			t.Errorf("the successor of %q is %v, %v, want %v", key, m, ok, other)
		}
		if m, ok := two.Heir(key); !ok || m != other {
			t.Errorf("the heir of %q is %v, %v, want %v", key, m, ok, other)
		}
		if got := two.Successors(key, 5); !slices.Equal(got, []Member{other}) {
			t.Errorf("the successors of %q are %v, want %v", key, got, other)
		}
		if got := two.Successors(key, 0); got != nil {
			t.Errorf("no successors of %q are %v", key, got)
		}
	}
	if got := two.Share(two.Members()[0].Name) + two.Share(two.Members()[1].Name); got != 1 {
		t.Errorf("the shares of two add up to %v", got)
	}
	if got := two.Share("nobody"); got != 0 {
		t.Errorf("the share of a stranger is %v", got)
	}
}

func TestMissing(t *testing.T) {
	for _, c := range []struct{ from, in, want string }{
		{"", "", ""}, {"a", "", "a"}, {"", "a", ""}, {"a b d", "b c", "a d"}, {"a b c", "a b c", ""},
		{"b c", "a b d", "c"}, {"a c e", "b d f", "a c e"}, {"c", "a b", "c"},
	} {
		var got []string
		n := missing(strings.Fields(c.from), strings.Fields(c.in), func(name string) { got = append(got, name) })
		if want := strings.Fields(c.want); n != len(want) || !slices.Equal(got, want) {
			t.Errorf("of %q not in %q: %d, %v, want %v", c.from, c.in, n, got, want)
		}
		if n != missing(strings.Fields(c.from), strings.Fields(c.in), nil) {
			t.Errorf("of %q not in %q: another number without a function", c.from, c.in)
		}
	}
}

// TestWorthMoving checks that a placer is moved if few of many members change, and that a new one is started
// if that costs no more.
func TestWorthMoving(t *testing.T) {
	for _, c := range []struct {
		changes, members int
		want             bool
	}{{1, 2, false}, {1, 3, false}, {1, 4, true}, {9, 100, true}, {10, 100, false}, {300, 1000, true}, {400, 1000, false}} {
		if got := worthMoving(c.changes, c.members); got != c.want {
			t.Errorf("%d of %d: %v", c.changes, c.members, got)
		}
	}
}

// TestPointsThatCoincide checks that coinciding points are detected anywhere on the ring.
func TestPointsThatCoincide(t *testing.T) {
	names := []string{"a", "b"}
	for at := range 4 {
		n := uint64(0)
		all, distinct := points(names, 2, func([]byte) uint64 {
			n++
			if n == uint64(at) {
				return n + 1 // the next one's hash
			}
			return n
		})
		if want := at == 0; len(all) != 4 || distinct != want {
			t.Errorf("%d: %d points, distinct %v", at, len(all), distinct)
		}
	}
}
