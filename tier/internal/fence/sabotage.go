package fence

import "github.com/weircache/weir/codec"

// What follows is for tests alone: of what a missing part of the fences would break.

// Forget makes the fence of a key forgotten, without the floor that stands for it.
func (f *Fences) Forget(key string, hash uint64) {
	s := f.shard(Slot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, key)
}

// Hide makes near copies of the hash's slot pass without a look at their fences.
func (f *Fences) Hide(hash uint64) { f.slots[Slot(hash)].Store(0) }

// NewestMark returns the newest logged mark of a key, the zero one if there is none.
func (f *Fences) NewestMark(key string, hash uint64) codec.Mark {
	s := f.shard(Slot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key].marks[0].mark
}
