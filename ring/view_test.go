package ring

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
)

func cluster(n int) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{Name: fmt.Sprintf("catalog-%d", i), Addr: fmt.Sprintf("10.0.%d.%d:7946", i/250, i%250), Incarnation: 1}
	}
	return members
}

func mustNew(t testing.TB, members []Member, cfg Config) *View {
	t.Helper()
	v, err := New(members, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestGolden pins the placement of Version 1. Members that place keys differently must not share a ring: a
// change that needs a new sum here must raise Version.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		members             int
		owners, fingerprint uint64
	}{
		{1, 0x6572b3b042d7b7b2, 0x34bfa3bc4910ef05},
		{3, 0xec908ab6ca14501a, 0xb877640b770472db},
		{100, 0xc083b19d169382fe, 0x710625342dcff96a},
	} {
		v := mustNew(t, cluster(c.members), Config{})
		var all strings.Builder
		for p := range v.Partitions() {
			fmt.Fprintln(&all, p, v.OwnerOf(p).Name)
		}
		if got := xxhash.Sum64String(all.String()); got != c.owners || v.Fingerprint() != c.fingerprint {
			t.Errorf("Version %d places %d members otherwise: owners %#x, fingerprint %#x", Version, c.members, got, v.Fingerprint())
		}
	}
	if got := Hash("sku-42"); got != 0xc5e4d3ea43cc79d1 {
		t.Errorf("Hash is %#x", got)
	}
}

// TestLibrary checks the owners of keys against the library itself.
func TestLibrary(t *testing.T) {
	members := cluster(10)
	var nodes []consistent.Member
	for _, m := range members {
		nodes = append(nodes, node(m.Name))
	}
	c := consistent.New(nodes, consistent.Config{
		Hasher: hasher(xxhash.Sum64), PartitionCount: DefaultPartitions, ReplicationFactor: DefaultReplicas, Load: DefaultLoad,
	})
	v := mustNew(t, members, Config{})
	for i := range 10_000 {
		key := fmt.Sprint("key-", i)
		if got, want := v.Owner(key).Name, c.LocateKey([]byte(key)).String(); got != want {
			t.Fatalf("the view gives %s to %s, the library to %s", key, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	two := []Member{{Name: "a"}, {Name: "b"}}
	for name, c := range map[string]struct {
		members []Member
		cfg     Config
		want    error
	}{
		"no members":         {nil, Config{}, ErrNoMembers},
		"duplicate":          {[]Member{{Name: "a"}, {Name: "b"}, {Name: "a", Incarnation: 2}}, Config{}, ErrDuplicateMember},
		"too many":           {cluster(8), Config{Partitions: 7}, ErrTooManyMembers},
		"no name":            {[]Member{{Name: "a"}, {}}, Config{}, ErrConfig},
		"long name":          {[]Member{{Name: strings.Repeat("n", MaxName+1)}}, Config{}, ErrConfig},
		"negative parts":     {two, Config{Partitions: -1}, ErrConfig},
		"too many parts":     {two, Config{Partitions: math.MaxUint16 + 1}, ErrConfig},
		"low load":           {two, Config{Load: 0.99}, ErrConfig},
		"negative load":      {two, Config{Load: -1.25}, ErrConfig},
		"load not a number":  {two, Config{Load: math.NaN()}, ErrConfig},
		"endless load":       {two, Config{Load: math.Inf(1)}, ErrConfig},
		"negative replicas":  {two, Config{Replicas: -20}, ErrConfig},
		"too many replicas":  {two, Config{Replicas: math.MaxInt32}, ErrConfig},
		"least of all":       {two, Config{Partitions: 2, Load: 1, Replicas: 1}, nil},
		"longest name":       {[]Member{{Name: strings.Repeat("n", MaxName)}}, Config{}, nil},
		"as many as parts":   {cluster(7), Config{Partitions: 7, Load: 1}, nil},
		"names with a colon": {[]Member{{Name: "1:a"}, {Name: "a"}, {Name: ":"}}, Config{}, nil},
	} {
		v, err := New(c.members, c.cfg)
		if !errors.Is(err, c.want) || (v == nil) != (err != nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	_, err := New(two, Config{Partitions: -1, Load: 0.5, Replicas: -1})
	for _, field := range []string{"Partitions", "Load", "Replicas"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%q does not name %s", err, field)
		}
	}
	v := mustNew(t, two, Config{})
	if _, err := v.Next(nil); !errors.Is(err, ErrNoMembers) {
		t.Errorf("Next without members: %v", err)
	}
}

// TestNoRoom makes the library panic: with a hash of four bits most members share every point with another
// one, and the rest have no room.
func TestNoRoom(t *testing.T) {
	tiny := func(b []byte) uint64 { return sum(b) >> 60 }
	if _, err := build(cluster(40), Config{Load: 1}.withDefaults(), tiny); !errors.Is(err, ErrConfig) {
		t.Fatalf("no room: %v", err)
	}
	v, err := build(cluster(1), Config{Load: 1}.withDefaults(), tiny)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Next(cluster(40)); !errors.Is(err, ErrConfig) {
		t.Fatalf("no room: %v", err)
	}
	if _, err := v.Next(cluster(1)); err != nil {
		t.Fatalf("after that: %v", err)
	}
}

func TestInputStaysTheCallers(t *testing.T) {
	members := []Member{{Name: "b"}, {Name: "a"}}
	v := mustNew(t, members, Config{})
	if members[0].Name != "b" {
		t.Error("New sorted the caller's slice")
	}
	members[0].Name, members[1].Name = "x", "y"
	if v.Index("a") != 0 || v.Index("b") != 1 || v.Index("x") != -1 {
		t.Errorf("the view changed with the caller's slice: %v", v.Members())
	}
	if m := mustNew(t, cluster(15), Config{}).Members(); len(m) != cap(m) {
		t.Error("an append to Members writes into the view's memory")
	}
}

func TestFingerprint(t *testing.T) {
	base := cluster(3)
	seen := map[uint64]string{mustNew(t, base, Config{}).Fingerprint(): "base"}
	for name, c := range map[string]struct {
		members []Member
		cfg     Config
	}{
		"fewer":      {base[:2], Config{}},
		"partitions": {base, Config{Partitions: 271}},
		"load":       {base, Config{Load: 1.3}},
		"replicas":   {base, Config{Replicas: 21}},
		"ab c":       {[]Member{{Name: "ab"}, {Name: "c"}}, Config{}},
		"a bc":       {[]Member{{Name: "a"}, {Name: "bc"}}, Config{}},
		"zoned":      {zoned(3, "a", "b"), Config{}},
		"two in a":   {zoned(3, "a", "a", "b"), Config{}},
		"all in a":   {zoned(3, "a"), Config{}},
		"a, none":    {zoned(3, "a", ""), Config{}},
	} {
		sum := mustNew(t, c.members, c.cfg).Fingerprint()
		if seen[sum] != "" {
			t.Errorf("%s and %s have one fingerprint", name, seen[sum])
		}
		seen[sum] = name
	}
	moved := []Member{{Name: base[0].Name, Addr: "elsewhere:1", Incarnation: 9}, base[1], base[2]}
	for _, cfg := range []Config{{}, {Partitions: DefaultPartitions, Load: DefaultLoad, Replicas: DefaultReplicas}} {
		if seen[mustNew(t, moved, cfg).Fingerprint()] != "base" {
			t.Error("an address, an incarnation or a spelled-out default counts")
		}
	}
}

func TestDiff(t *testing.T) {
	a, b, c := Member{Name: "a", Addr: "h:1", Incarnation: 1}, Member{Name: "b", Addr: "h:2", Incarnation: 1}, Member{Name: "c", Addr: "h:3", Incarnation: 1}
	old := mustNew(t, []Member{a, b}, Config{Partitions: 31})
	if d := old.Diff(old); !reflect.DeepEqual(d, Diff{}) {
		t.Errorf("a view differs from itself: %+v", d)
	}
	b2 := Member{Name: "b", Addr: "h:9", Incarnation: 2}
	v, err := old.Next([]Member{c, b2})
	if err != nil {
		t.Fatal(err)
	}
	d := v.Diff(old)
	if !reflect.DeepEqual([][]Member{d.Joined, d.Left, d.Restarted}, [][]Member{{c}, {a}, {b2}}) {
		t.Errorf("Diff is %+v", d)
	}
	requireDiff(t, v, old)
	again, err := v.Next([]Member{b2, {Name: "c", Addr: "h:4", Incarnation: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if d := again.Diff(v); len(d.Restarted) != 1 || len(d.Moved) != 0 || again.Fingerprint() != v.Fingerprint() {
		t.Errorf("a restart moves something: %+v", d)
	}
	if m, _ := v.Member("c"); m != c {
		t.Errorf("Next changed the view it came from: %v", m)
	}
	if d := old.Diff(nil); len(d.Joined) != 2 || len(d.Moved) != 31 || d.Left != nil {
		t.Errorf("against nothing: %+v", d)
	}
	other := mustNew(t, []Member{a}, Config{Partitions: 17})
	if d := other.Diff(old); len(d.Moved) != 17 || d.Moved[3] != (Move{3, "", "a"}) {
		t.Errorf("with other partitions: %+v", d)
	}
}

// TestConcurrent reads one view and derives others from it in many goroutines.
func TestConcurrent(t *testing.T) {
	members := cluster(12)
	v := mustNew(t, members, Config{Partitions: 271})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 12 {
				next, err := v.Next(members[:12-(g+i)%2])
				if err != nil {
					t.Error(err)
					return
				}
				requireExact(errorer{t}, next, i%next.Len())
				requireExact(errorer{t}, v, (g+i)%12)
			}
		})
	}
	wg.Wait()
}

type errorer struct{ *testing.T }

func (e errorer) Fatalf(format string, args ...any) { e.Errorf(format, args...) }

func TestAllocations(t *testing.T) {
	v := mustNew(t, cluster(5), Config{})
	v.Prepare("nobody")
	for _, m := range v.Members() {
		v.Prepare(m.Name)
	}
	n := testing.AllocsPerRun(100, func() {
		v.Owner("sku-42")
		v.OwnerIndex("sku-43")
		v.Successor("sku-44")
	})
	if n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
	alone := mustNew(t, cluster(1), Config{})
	alone.Prepare("catalog-0")
	if m, ok := alone.Successor("k"); ok || alone.Successors("k", 3) != nil || v.Successors("k", -1) != nil || v.Successors("k", 0) != nil {
		t.Errorf("a successor out of nothing: %v", m)
	}
}
