package ring

import (
	"slices"
	"sync"
)

// lost holds the tables for the loss of one member, built on first use. Both tables are indexed by partition
// and hold indexes into the active members of the whole view.
type lost struct {
	once       sync.Once
	heirs      []uint16 // the owners without the member
	successors []uint16 // the successors of the member's partitions; the heirs if zones do not matter
}

// Prepare builds the tables that Successor and Heir read when the named member is the owner, so that the
// first caller need not wait for them. It takes about a millisecond for up to a hundred members and a few for
// a thousand. It ignores a name that is not in the view.
func (v *View) Prepare(name string) {
	if i := v.seat(name); i >= 0 && len(v.active) > 1 {
		v.lose(i)
	}
}

// lose returns the tables for the loss of a member. The view must have at least two active members.
func (l *layout) lose(member int) *lost {
	t := &l.without[member]
	t.once.Do(func() {
		t.heirs = l.losing(member)
		t.successors = l.succeeding(member, t.heirs)
	})
	return t
}

// losing returns the owners of all partitions in the view without one of its members.
func (l *layout) losing(member int) []uint16 {
	rest := slices.Delete(slices.Clone(l.names), member, member+1)
	place := l.placer.owners
	if !l.distinct {
		place = l.placer.afresh
	}
	owners, err := place(rest)
	if err != nil { // points coincide: such a view could not be built, so the next member on the ring must do
		owners = make([]uint16, len(l.owners))
		for p := range owners {
			owners[p] = uint16(l.walk(p, []int{member}, 1)[0])
		}
		return owners
	}
	for p, o := range owners {
		if int(o) >= member {
			owners[p] = o + 1 // the index in rest becomes an index in names
		}
	}
	return owners
}

// Successor returns the member that a key goes to if its owner is lost. It is the Heir if that is in another
// zone than the owner, otherwise the first member of another zone in ring order from the key's partition. If
// the owner's zone is unknown, or no member is known to be in another one, it is the Heir. It returns false
// if there is only one member. It does not allocate, except that the first call for each owner takes as long
// as Prepare.
func (v *View) Successor(key string) (Member, bool) {
	return v.SuccessorOf(v.Partition(key))
}

// SuccessorOf returns the Successor of the keys of a partition, which must be in [0, Partitions).
func (v *View) SuccessorOf(partition int) (Member, bool) {
	if len(v.active) < 2 {
		return Member{}, false
	}
	return v.active[v.lose(int(v.owners[partition])).successors[partition]], true
}

// Heir returns the member that owns a key in the view without the key's owner, regardless of zones. It
// returns false if there is only one member. It costs the same as Successor.
func (v *View) Heir(key string) (Member, bool) {
	if len(v.active) < 2 {
		return Member{}, false
	}
	p := v.Partition(key)
	return v.active[v.lose(int(v.owners[p])).heirs[p]], true
}

// Successors returns the first n distinct members after the owner of a key: first its Successor, then the
// other members of other zones than the owner's, then the rest with the Heir first. Each group is in ring
// order from the key's partition, which is the same on every node. The result is shorter than n if the view
// has too few members. The caller owns the slice.
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

// walk returns the first n distinct members in ring order from a partition, without those in skip. There must
// be at least n.
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
