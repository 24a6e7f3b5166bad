package fence

import (
	"cmp"
	"maps"
	"slices"
)

// Versions are the origin's own numbers for the states of one key. The versions of two keys are unrelated and are
// never compared.
//
// An invalidation may carry the version that its key has now. A value that is loaded later with a lower version comes
// from a lagging replica and is not kept. A key's fence remembers its version. If the fence is forgotten before
// retention has passed, because the whole namespace was invalidated or the shard is full, the version stays in the
// shard's versionBook.

// versionsPerShard is how many keys a versionBook remembers: 131,072 in all shards, in addition to those with fences.
const versionsPerShard = 512

// versionBook holds the versions of keys whose fences are gone. The lock of its shard guards it.
type versionBook struct {
	m map[string]versioned // nil: none
	// doubtAt is when a fence that may stem from an invalidation without a version was last forgotten early, ns on
	// the cache's clock; 0: never. For retention after that no Put can prove that its value is the newest.
	doubtAt int64
}

// versioned is the highest version that was reported for a key, and when, ns on the cache's clock.
type versioned struct {
	version uint64
	at      int64
}

// keep remembers the version of a fence that is forgotten early. If the book is full it forgets what is past
// retention or, if nothing is, the older half.
func (b *versionBook) keep(key string, x *fence, now, retention int64) {
	b.doubtAt = max(now, 1)
	if x.version == 0 {
		return
	}
	old, ok := b.m[key]
	if !ok && len(b.m) >= versionsPerShard && !b.expire(now, retention) {
		keys := slices.SortedFunc(maps.Keys(b.m), func(x, y string) int { return cmp.Compare(b.m[x].at, b.m[y].at) })
		for _, k := range keys[:len(keys)/2] {
			delete(b.m, k)
		}
	}
	if b.m == nil {
		b.m = make(map[string]versioned)
	}
	b.m[key] = versioned{max(old.version, x.version), x.at}
}

// expire forgets what is past retention, and reports whether it forgot anything.
func (b *versionBook) expire(now, retention int64) (any bool) {
	for k, v := range b.m {
		if now-v.at > retention {
			delete(b.m, k)
			any = true
		}
	}
	return any
}

// newest returns the highest version of the key reported within retention; 0 if there was none. The caller holds
// s.mu.
func (s *fenceShard) newest(key string, now, retention int64) uint64 {
	version := s.m[key].version
	if v := s.versions.m[key]; now-v.at <= retention {
		version = max(version, v.version)
	}
	return version
}

// Behind reports whether the origin is known to have a newer version of the key than version.
func (f *Fences) Behind(key string, hash, version uint64) bool {
	s := f.shard(Slot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest(key, f.now(), f.retention) > version
}

// Place calls store with the fence clock if the value with this version, which was the origin's at began, is the
// newest known. That requires three things: no higher version was reported, no invalidation within retention came
// without a version, and began is within retention, so that nothing of either kind can have been forgotten since.
func (f *Fences) Place(key string, hash, version uint64, began int64, store func(stamp uint64)) bool {
	s := f.shard(Slot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	now, doubt := f.now(), s.versions.doubtAt // with the lock held: the time that this goroutine waited for it counts
	if now-began > f.retention || s.m[key].plain || doubt != 0 && now-doubt <= f.retention || s.newest(key, now, f.retention) > version {
		return false
	}
	store(s.clock.Load())
	return true
}
