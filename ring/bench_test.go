package ring

import (
	"fmt"
	"slices"
	"testing"
)

var sizes = []int{3, 10, 100, 1000}

func bySize(b *testing.B, f func(b *testing.B, v *View)) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) { f(b, mustNew(b, cluster(n), Config{})) })
	}
}

func keys() []string {
	list := make([]string, 1024)
	for i := range list {
		list[i] = fmt.Sprintf("product:sku-%d", i*7919)
	}
	return list
}

// BenchmarkOwner looks up the owner of a key.
func BenchmarkOwner(b *testing.B) {
	keys := keys()
	bySize(b, func(b *testing.B, v *View) {
		b.ReportAllocs()
		sum := 0
		for i := 0; b.Loop(); i++ {
			sum += v.OwnerIndex(keys[i%len(keys)])
		}
		if sum < 0 {
			b.Fatal("never")
		}
	})
}

// BenchmarkSuccessor looks up the successor of a key once the tables exist.
func BenchmarkSuccessor(b *testing.B) {
	keys := keys()
	bySize(b, func(b *testing.B, v *View) {
		for _, k := range keys {
			v.Successor(k)
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			v.Successor(keys[i%len(keys)])
		}
	})
}

// BenchmarkSuccessors asks for three successors once the tables exist.
func BenchmarkSuccessors(b *testing.B) {
	keys := keys()
	bySize(b, func(b *testing.B, v *View) {
		for _, k := range keys {
			v.Successor(k)
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			v.Successors(keys[i%len(keys)], 3)
		}
	})
}

// BenchmarkNew builds a view from scratch.
func BenchmarkNew(b *testing.B) {
	bySize(b, func(b *testing.B, v *View) {
		for b.Loop() {
			mustNew(b, v.Members(), Config{})
		}
	})
}

// BenchmarkNext lets a member leave and come back. One iteration is one of the two.
func BenchmarkNext(b *testing.B) {
	bySize(b, func(b *testing.B, v *View) {
		all, i := v.Members(), 0
		for b.Loop() {
			next, err := v.Next(all[i:])
			if err != nil {
				b.Fatal(err)
			}
			v, i = next, 1-i
		}
	})
}

// BenchmarkPrepare builds the table of one owner's successors.
func BenchmarkPrepare(b *testing.B) {
	bySize(b, func(b *testing.B, v *View) {
		for i := 0; b.Loop(); i++ {
			v.losing(i % v.Len())
		}
	})
}

// BenchmarkMove does not measure time. It reports how evenly the partitions are spread, and how many move
// when one member joins or leaves, in percent. Due is what the member gets or had: a placement cannot move
// less. as-walked is the share of a lost member's partitions that went to the next other member on the ring,
// where a walk would look.
func BenchmarkMove(b *testing.B) {
	for _, cfg := range []Config{{}, {Load: 1.1}, {Load: 1.5}, {Replicas: 5}, {Replicas: 100}} {
		for _, n := range sizes {
			if n*n*cfg.Replicas > 20_000_000 {
				continue // the library takes seconds for it
			}
			name := fmt.Sprintf("load=%v/points=%d/members=%d", cfg.withDefaults().Load, cfg.withDefaults().Replicas, n)
			b.Run(name, func(b *testing.B) { move(b, n, cfg) })
		}
	}
}

func move(b *testing.B, n int, cfg Config) {
	v := mustNew(b, cluster(n), cfg)
	trials := min(n, 20)
	var join, joinDue, leave, leaveDue, asWalked, asWalkedOf int
	for b.Loop() {
		join, joinDue, leave, leaveDue, asWalked, asWalkedOf = 0, 0, 0, 0, 0, 0
		for i := range trials {
			who := v.Members()[i*n/trials]
			less, err := v.Next(slices.DeleteFunc(slices.Clone(v.Members()), func(m Member) bool { return m == who }))
			if err != nil {
				b.Fatal(err)
			}
			leave += len(less.Diff(v).Moved)
			leaveDue += v.counts[v.Index(who.Name)]
			for p, o := range v.owners {
				if v.Members()[o] == who {
					asWalkedOf++
					if v.Members()[v.walk(p, []int{int(o)}, 1)[0]] == less.OwnerOf(p) {
						asWalked++
					}
				}
			}
			newcomer := Member{Name: fmt.Sprintf("new-%d", i)}
			more, err := v.Next(append(slices.Clone(v.Members()), newcomer))
			if err != nil {
				b.Fatal(err)
			}
			join += len(more.Diff(v).Moved)
			joinDue += more.counts[more.Index(newcomer.Name)]
		}
	}
	all := float64(trials * v.Partitions())
	b.ReportMetric(100*float64(join)/all, "%join")
	b.ReportMetric(100*float64(joinDue)/all, "%due-join")
	b.ReportMetric(100*float64(leave)/all, "%leave")
	b.ReportMetric(100*float64(leaveDue)/all, "%due-leave")
	b.ReportMetric(100*float64(asWalked)/float64(asWalkedOf), "%as-walked")
	b.ReportMetric(float64(slices.Max(v.counts))*float64(n)/float64(v.Partitions()), "max/mean")
	b.ReportMetric(0, "ns/op")
}
