package ring

import (
	"slices"
	"sync"
)

// lost is the table of who takes over from one member, made when first asked for.
type lost struct {
	once  sync.Once
	heirs []uint16 // by partition, as places in the members; of those that are not the member's it tells nothing
}

// Prepare makes the table that Successor reads when the named member is the owner, so that
// the first caller need not wait for it. It takes about a millisecond for up to a hundred
// members and a few for a thousand. A name that is not in the view is ignored.
func (v *View) Prepare(name string) {
	if i := v.Index(name); i >= 0 && len(v.members) > 1 {
		v.lose(i)
	}
}

// lose returns who takes over the partitions of one of the members, of which there must be two.
func (l *layout) lose(member int) []uint16 {
	t := &l.without[member]
	t.once.Do(func() {
		t.heirs = l.losing(member)
		for p, heir := range t.heirs {
			if int(l.owners[p]) == member && l.together(member, int(heir)) {
				t.heirs[p] = l.apart(p, member, heir)
			}
		}
	})
	return t.heirs
}

// together reports whether two members are in one zone.
func (l *layout) together(a, b int) bool {
	return l.zones != nil && l.zones[a] != "" && l.zones[a] == l.zones[b]
}

// apart returns the first member in the order of the ring from a partition that is in another zone than
// member, or heir if there is none.
func (l *layout) apart(partition, member int, heir uint16) uint16 {
	at := l.from(partition)
	for i := range l.points {
		m := l.points[(at+i)%len(l.points)].member
		if zone := l.zones[m]; zone != "" && zone != l.zones[member] {
			return m
		}
	}
	return heir
}

// losing returns the owners of partitions in the view without one member.

func (l *layout) losing(member int) []uint16 {
	rest := slices.Delete(slices.Clone(l.names), member, member+1)
	place := l.placer.owners
	if !l.distinct {
		place = l.placer.afresh
	}
	owners, err := place(rest)
	if err != nil { // only where points coincide: no such view could be built, the nearest will do
		owners = make([]uint16, len(l.owners))
		for p := range owners {
			owners[p] = uint16(l.walk(p, []int{member}, 1)[0])
		}
		return owners
	}
	for p, o := range owners {
		if int(o) >= member {
			owners[p] = o + 1 // the place in rest becomes one in names
		}
	}
	return owners
}

// Successor returns the member that all turn to if a key's owner is lost: exactly the key's owner
// in the view without the owner; but if that one is in the owner's zone, the first one in the
// order of the ring that is in another, if there is any. false: there is no other member. It does not
// allocate, but the first call for each owner takes as long as Prepare does.
func (v *View) Successor(key string) (Member, bool) {
	if len(v.members) < 2 {
		return Member{}, false
	}
	p := v.Partition(key)
	return v.members[v.lose(int(v.owners[p]))[p]], true
}

// Successors returns the first n distinct members after the owner of a key: first its
// Successor, then the others in the order of the ring from the key's partition, which is
// the same on every node; those in the owner's zone come last. There are fewer than n where the view has no more. The
// slice is the caller's.
func (v *View) Successors(key string, n int) []Member {
	if n = min(n, len(v.members)-1); n <= 0 {
		return nil
	}
	p := v.Partition(key)
	owner := int(v.owners[p])
	first := int(v.lose(owner)[p])
	out := make([]Member, 1, n)
	out[0] = v.members[first]
	var last []int // who is in the owner's zone
	for _, i := range v.walk(p, []int{owner, first}, len(v.members)-2) {
		switch {
		case len(out) == n:
			return out
		case v.together(owner, i):
			last = append(last, i)
		default:
			out = append(out, v.members[i])
		}
	}
	for _, i := range last[:n-len(out)] {
		out = append(out, v.members[i])
	}
	return out
}

// walk returns the first n distinct members in the order of the ring from a partition,
// without those in skip. There must be so many.
func (l *layout) walk(partition int, skip []int, n int) []int {
	out := make([]int, 0, n)
	seen := make([]bool, len(l.names))
	for _, i := range skip {
		seen[i] = true
	}
	at := l.from(partition)
	for i := 0; i < len(l.points) && len(out) < n; i++ {
		m := int(l.points[(at+i)%len(l.points)].member)
		if !seen[m] {
			seen[m] = true
			out = append(out, m)
		}
	}
	return out
}
