package journal

import "slices"

// track is how far this cache has applied the invalidations of one incarnation.
type track struct {
	top    uint64   // all numbers up to this one are applied
	beyond []uint64 // and these, in order
	// The log has dropped the numbers up to cut for lack of room, and those up to aged because of their age.
	cut, aged uint64
	cutAt     int64 // when the last one that was cut was applied
	agedAt    int64 // when the last one that aged was applied
	last      int64 // when the first members applied the last one, or later
}

func (t *track) has(seq uint64) bool {
	if seq <= t.top {
		return true
	}
	_, ok := slices.BinarySearch(t.beyond, seq)
	return ok
}

// appliedAt notes when the invalidation that is about to be noted was applied. On a new cache's clock that time may be
// below 0. Call appliedAt before add and addAll.
func (t *track) appliedAt(at int64) {
	if at > t.last || t.highest() == 0 {
		t.last = at
	}
}

// add notes that seq, which t does not have yet, is applied.
func (t *track) add(seq uint64) {
	if seq == t.top+1 {
		t.addAll(seq)
	} else if i, _ := slices.BinarySearch(t.beyond, seq); len(t.beyond) < maxBeyond {
		t.beyond = slices.Insert(t.beyond, i, seq)
	}
}

// addAll notes that all numbers up to seq are applied.
func (t *track) addAll(seq uint64) {
	t.top = max(t.top, seq)
	n := 0
	for n < len(t.beyond) && t.beyond[n] <= t.top+1 {
		t.top = max(t.top, t.beyond[n])
		n++
	}
	t.beyond = slices.Delete(t.beyond, 0, n)
}

// highest returns the highest number that is applied.
func (t *track) highest() uint64 {
	if n := len(t.beyond); n > 0 {
		return t.beyond[n-1]
	}
	return t.top
}
