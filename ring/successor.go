package ring

import (
	"slices"
	"sync"
)

// lost has the tables for one member's loss, made when first asked for. Both are of
// partitions, and have places in the members of the whole view.
type lost struct {
	once       sync.Once
	heirs      []uint16 // the owners without the member
	successors []uint16 // the successors of the member's partitions; where no zones matter the heirs
}

// Prepare makes the tables that Successor and Heir read when the named member is the owner, so that
// the first caller need not wait for it. It takes about a millisecond for up to a hundred
// members and a few for a thousand. A name that is not in the view is ignored.
func (v *View) Prepare(name string) {
	if i := v.seat(name); i >= 0 && len(v.active) > 1 {
		v.lose(i)
	}
}

// lose returns the tables for the loss of a member. There must be two.
func (l *layout) lose(member int) *lost {
	t := &l.without[member]
	t.once.Do(func() {
		t.heirs = l.losing(member)
		t.successors = l.succeeding(member, t.heirs)
	})
	return t
}

// losing returns the owners of partitions in the view without one of its members.
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

// Successor returns the member that a key goes to if its owner is lost: its Heir, if that is
// in another zone than the owner, else the first that is, in the order of the ring from
// the key's partition. Where the owner's zone or all the others' are unknown, or all the
// same, it is the Heir. false: there is no other member. It does not allocate, but the first
// call for each owner takes as long as Prepare does.
func (v *View) Successor(key string) (Member, bool) {
	return v.SuccessorOf(v.Partition(key))
}

// SuccessorOf returns the Successor of the keys of a partition, which must be from 0 up and below Partitions.
func (v *View) SuccessorOf(partition int) (Member, bool) {
	if len(v.active) < 2 {
		return Member{}, false
	}
	return v.active[v.lose(int(v.owners[partition])).successors[partition]], true
}

// Heir returns the member that owns a key in the view without the key's owner, whatever
// the zones. false: there is no other member. It costs what Successor does.
func (v *View) Heir(key string) (Member, bool) {
	if len(v.active) < 2 {
		return Member{}, false
	}
	p := v.Partition(key)
	return v.active[v.lose(int(v.owners[p])).heirs[p]], true
}

// Successors returns the first n distinct members after the owner of a key: first its
// Successor, then the others of other zones than the owner's, then the rest, its Heir
// before the others, all in the order of the ring from the key's partition, which is the same
// on every node. There are fewer than n where the view has no more. The
// slice is the caller's.
func (v *View) Successors(key string, n int) []Member {
	if n = min(n, len(v.active)-1); n <= 0 {
		return nil
	}
	p := v.Partition(key)
	owner := int(v.owners[p])
	lost := v.lose(owner)
	first, heir := int(lost.successors[p]), int(lost.heirs[p])
	order := make([]int, 1, len(v.active))
	order[0] = first
	if v.alone(owner) {
		order = append(order, v.walk(p, []int{owner, first}, n-1)...)
	} else {
		rest := v.walk(p, []int{owner, first}, len(v.active)-2)
		for _, i := range rest {
			if v.apart(owner, i) {
				order = append(order, i)
			}
		}
		if heir != first && !v.apart(owner, heir) {
			order = append(order, heir)
		}
		for _, i := range rest {
			if !v.apart(owner, i) && i != heir {
				order = append(order, i)
			}
		}
	}
	out := make([]Member, n)
	for i := range out {
		out[i] = v.active[order[i]]
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
