package fence

import "github.com/weircache/weir/codec"

// What follows is for tests only: they check what breaks if a part of the fences is missing.

// Forget drops the fence of a key without raising the floor that stands for it.
func (f *Fences) Forget(key string, hash uint64) {
	s := f.shard(Slot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, key)
}

// Hide lets near copies in the hash's slot pass without a check of their fences.
func (f *Fences) Hide(hash uint64) { f.slots[Slot(hash)].Store(0) }

// NewestMark returns the newest logged mark of a key, or the zero mark.
func (f *Fences) NewestMark(key string, hash uint64) codec.Mark {
	s := f.shard(Slot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key].marks[0].mark
}
