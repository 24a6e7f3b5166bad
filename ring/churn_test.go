package ring

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestChurn runs a hundred random histories of members that join, leave and restart; TestChurnLong runs two
// thousand. After any history, the view must equal the one that New makes of the same members. rapid prints
// the seed of a history that fails.
func TestChurn(t *testing.T) { rapid.Check(t, churn) }

func TestChurnLong(t *testing.T) {
	for i := range 20 {
		t.Run(strconv.Itoa(i), func(t *testing.T) { rapid.Check(t, churn) })
	}
}

func churn(t *rapid.T) {
	cfg := Config{
		Partitions: rapid.SampledFrom([]int{13, 31, 61}).Draw(t, "partitions"),
		Load:       rapid.SampledFrom([]float64{1, 1.05, 1.25, 3}).Draw(t, "load"),
		Replicas:   rapid.SampledFrom([]int{1, 3, 8}).Draw(t, "replicas"),
	}
	hash, roomy := hasher(sum), true
	if rapid.IntRange(0, 2).Draw(t, "coarse") == 2 {
		hash, roomy = coarse, false
	}
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))

	some := rapid.IntRange(0, 3).Draw(t, "zones") // 0: none has one

	now := map[string]Member{}
	for range rapid.IntRange(1, 12).Draw(t, "first") {
		m := Member{Name: "m" + strconv.Itoa(rng.IntN(13)), Zone: someZone(rng, some)}
		now[m.Name] = m
	}
	v, err := build(shuffled(rng, now), cfg, hash)
	if err != nil && roomy {
		t.Fatal(err)
	}
	if err != nil {
		return // no room from the start
	}
	for range rapid.IntRange(1, 6).Draw(t, "steps") {
		m := Member{Name: "m" + strconv.Itoa(rng.IntN(13)), Incarnation: rng.Uint64(), Zone: someZone(rng, some)}
		if _, ok := now[m.Name]; ok && len(now) > 1 && rapid.Bool().Draw(t, "leave") {
			delete(now, m.Name)
		} else {
			now[m.Name] = m
		}
		if rapid.IntRange(0, 3).Draw(t, "lose") == 0 { // the library's ring would be left without a member
			v.Prepare(v.Members()[rng.IntN(v.Len())].Name)
		}
		want, wantErr := build(shuffled(rng, now), cfg, hash)
		next, err := v.Next(shuffled(rng, now))
		if (err == nil) != (wantErr == nil) || err != nil && roomy {
			t.Fatalf("Next says %v, New says %v", err, wantErr)
		}
		if err != nil {
			continue // no room, because points collide: the old view stays
		}
		old := v
		v = next
		requireEqual(t, v, want)
		requireSound(t, v)
		requireDiff(t, v, old)
		requireExact(t, v, rng.IntN(v.Len()))
		requireApart(t, v)
	}
}

// TestMoving moves one placer back and forth among sixty members, where moving by several members at once is
// worthwhile.
func TestMoving(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	cfg := Config{Partitions: 271}
	all := cluster(62)
	v := mustNew(t, all, cfg)
	first, moved := v, 0
	for range 8 {
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		lib := v.placer.lib
		next, err := v.Next(all[:60+rng.IntN(3)])
		if err != nil {
			t.Fatal(err)
		}
		if next.layout != v.layout && next.placer.lib == lib {
			moved++
		}
		v = next
		requireEqual(t, v, mustNew(t, v.Members(), cfg))
		requireExact(t, v, rng.IntN(v.Len()))
		requireExact(t, first, rng.IntN(first.Len()))
	}
	if moved == 0 {
		t.Error("no view moved the placer of the one before")
	}
}

// TestCoincide adds a member whose points may coincide with others', and removes each member in turn. The
// library's ring then depends on the order in which they came.
func TestCoincide(t *testing.T) {
	cfg, met := Config{Partitions: 61, Replicas: 8}.withDefaults(), 0
	for i := range 10 {
		members := cluster(8*i + 8)[8*i:]
		for k := range members {
			v, err := build(slices.Delete(slices.Clone(members), k, k+1), cfg, coarse)
			if err != nil {
				t.Fatal(err)
			}
			want, err := build(members, cfg, coarse)
			if err != nil {
				t.Fatal(err)
			}
			next, err := v.Next(members)
			if err != nil {
				t.Fatal(err)
			}
			if !next.distinct {
				met++
			}
			requireEqual(t, next, want)
			requireExact(t, next, k)
			requireExact(t, next, (k+3)%8)
			requireExact(t, v, k%7)
		}
	}
	if met == 0 {
		t.Error("no points coincide")
	}
}

// coarse is a hash of ten bits, so that points coincide and some members have none.
func coarse(b []byte) uint64 { return sum(b) >> 54 }

func shuffled(rng *rand.Rand, members map[string]Member) []Member {
	list := slices.Collect(maps.Values(members))
	slices.SortFunc(list, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

type fataler interface {
	Fatalf(format string, args ...any)
}

// requireEqual compares everything that is observable of two views.
func requireEqual(t fataler, got, want *View) {
	if !slices.Equal(got.Members(), want.Members()) || got.Fingerprint() != want.Fingerprint() || !slices.Equal(got.owners, want.owners) {
		t.Fatalf("views of the same members differ:\n%v %x %v\n%v %x %v",
			got.members, got.fingerprint, got.owners, want.members, want.fingerprint, want.owners)
	}
	for i := range 8 {
		key := "key-" + strconv.Itoa(i)
		if g, w := got.Successors(key, 4), want.Successors(key, 4); !slices.Equal(g, w) {
			t.Fatalf("%s has successors %v and %v", key, g, w)
		}
	}
}

// requireSound checks the invariants of a single view.
func requireSound(t fataler, v *View) {
	share, most := 0.0, math.Ceil(float64(v.Partitions())/float64(v.Len())*v.placer.cfg.Load)
	for _, m := range v.Members() {
		share += v.Share(m.Name)
		if n := v.Share(m.Name) * float64(v.Partitions()); n > most+1e-6 {
			t.Fatalf("%s owns %v partitions of %d, at most %v are allowed", m.Name, n, v.Partitions(), most)
		}
	}
	if math.Abs(share-1) > 1e-9 {
		t.Fatalf("the shares' sum is %v", share)
	}
	for i := range 8 {
		key := fmt.Sprint("sku", i)
		first, ok := v.Successor(key)
		next := v.Successors(key, v.Len()+3)
		if ok != (len(next) > 0) || ok && first != next[0] {
			t.Fatalf("%s: Successor is %v, %v and Successors are %v", key, first, ok, next)
		}
		seen := map[string]bool{v.Owner(key).Name: true}
		for _, m := range next {
			if seen[m.Name] {
				t.Fatalf("%s of %s: %v come twice or own it", key, v.Owner(key).Name, next)
			}
			seen[m.Name] = true
		}
		if len(next) != v.Len()-1 {
			t.Fatalf("%s has %d successors in %d members", key, len(next), v.Len())
		}
	}
}

// requireDiff checks Diff against the members and owners of both views.
func requireDiff(t fataler, v, old *View) {
	d := v.Diff(old)
	for _, m := range d.Joined {
		if old.Index(m.Name) >= 0 || v.Index(m.Name) < 0 {
			t.Fatalf("%s did not join", m.Name)
		}
	}
	for _, m := range d.Left {
		if old.Index(m.Name) < 0 || v.Index(m.Name) >= 0 {
			t.Fatalf("%s did not leave", m.Name)
		}
	}
	for _, m := range d.Restarted {
		was, ok := old.Member(m.Name)
		is, _ := v.Member(m.Name)
		if !ok || was == m || is != m {
			t.Fatalf("%v did not restart", m)
		}
	}
	if v.Len()-old.Len() != len(d.Joined)-len(d.Left) {
		t.Fatalf("%d members became %d: %+v", old.Len(), v.Len(), d)
	}
	moved := 0
	for p := range v.Partitions() {
		from, to := old.OwnerOf(p).Name, v.OwnerOf(p).Name
		if from == to {
			continue
		}
		if moved == len(d.Moved) || d.Moved[moved] != (Move{p, from, to}) {
			t.Fatalf("partition %d moved from %s to %s: %v", p, from, to, d.Moved)
		}
		moved++
	}
	if moved != len(d.Moved) {
		t.Fatalf("%d partitions moved, Diff has %d", moved, len(d.Moved))
	}
}

// requireExact compares the successors of one member's keys with the owners in a new view without it.
func requireExact(t fataler, v *View, lost int) {
	rest := slices.Delete(slices.Clone(v.Members()), lost, lost+1)
	if len(rest) == 0 {
		return
	}
	without, err := build(rest, v.placer.cfg, v.placer.hash)
	if err != nil {
		return // points collide: there is not enough room without it
	}
	for i := range 30 {
		key := fmt.Sprint("k", i)
		if v.OwnerIndex(key) != lost {
			continue
		}
		if got, ok := v.Heir(key); !ok || got != without.Owner(key) {
			t.Fatalf("%s goes to %v, Heir says %v", key, without.Owner(key), got)
		}
	}
}
