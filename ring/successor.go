package ring

import (
	"slices"
	"sync"
)

// lost is the table of owners without one member, made when first asked for.
type lost struct {
	once   sync.Once
	owners []uint16 // of partitions, as places in the members of the whole view
}

// Prepare makes the table that Successor reads when the named member is the owner, so that
// the first caller need not wait for it. It takes about a millisecond for up to a hundred
// members and a few for a thousand. A name that is not in the view is ignored.
func (v *View) Prepare(name string) {
	if i := v.seat(name); i >= 0 && len(v.active) > 1 {
		v.lose(i)
	}
}

// lose returns the owners of partitions in the view without one of its members, of which
// there must be two.
func (l *layout) lose(member int) []uint16 {
	t := &l.without[member]
	t.once.Do(func() { t.owners = l.losing(member) })
	return t.owners
}

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

// Successor returns the member that a key goes to if its owner is lost: exactly its owner
// in the view without the owner. false: there is no other member. It does not allocate,
// but the first call for each owner takes as long as Prepare does.
func (v *View) Successor(key string) (Member, bool) {
	if len(v.active) < 2 {
		return Member{}, false
	}
	p := v.Partition(key)
	return v.active[v.lose(int(v.owners[p]))[p]], true
}

// Successors returns the first n distinct members after the owner of a key: first its
// Successor, then the others in the order of the ring from the key's partition, which is
// the same on every node. There are fewer than n where the view has no more. The
// slice is the caller's.
func (v *View) Successors(key string, n int) []Member {
	if n = min(n, len(v.active)-1); n <= 0 {
		return nil
	}
	p := v.Partition(key)
	owner := int(v.owners[p])
	first := int(v.lose(owner)[p])
	out := make([]Member, 1, n)
	out[0] = v.active[first]
	for _, i := range v.walk(p, []int{owner, first}, n-1) {
		out = append(out, v.active[i])
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
