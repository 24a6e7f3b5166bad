package store_test

import "testing"

func TestOwnedScanAndReturn(t *testing.T) {
	const n = 1000
	s := newFixed(n, nil)
	defer s.Close()
	for i := range n / 2 {
		s.Set(fixedKey(i), fixed())
	}
	for range 3 {
		for i := range n / 2 {
			s.Get(fixedKey(i))
		}
	}
	for i := n; i < 4*n; i++ { // keys that are read once each
		s.Set(fixedKey(i), fixed())
	}
	kept := 0
	for i := range n / 2 {
		if _, ok := s.Get(fixedKey(i)); ok {
			kept++
		}
	}
	if kept < n/2*9/10 {
		t.Errorf("a scan left %d of %d hot keys", kept, n/2)
	}
	// A key that was recently evicted without a hit and comes back gets more time.
	back := fixedKey(4*n - n/2 - n/10)
	if _, ok := s.Get(back); ok {
		t.Fatal("the key that should come back is still there")
	}
	s.Set(back, fixed())
	for i := 4 * n; i < 5*n; i++ {
		s.Set(fixedKey(i), fixed())
	}
	if _, ok := s.Get(back); !ok {
		t.Error("a key that came back was evicted like a new one")
	}
	if _, ok := s.Get(fixedKey(4 * n)); ok {
		t.Error("a new key without a hit outlived n newer ones")
	}
}

// In the main queue, keys that are read outlive keys that are not.
func TestOwnedMainQueue(t *testing.T) {
	const n = 1000
	s := newFixed(n, nil)
	defer s.Close()
	promote := func(from, to int) {
		for i := from; i < to; i++ {
			s.Set(fixedKey(i), fixed())
			s.Get(fixedKey(i))
		}
	}
	promote(0, n)
	promote(n, n+n/10) // by now the older keys have moved to the main queue
	for i := 200; i < 600; i++ {
		if i%2 == 0 {
			s.Get(fixedKey(i))
		}
	}
	promote(2*n, 2*n+400)
	even, odd, left := 0, 0, contents(s)
	for i := 200; i < 600; i++ {
		if left[fixedKey(i)] == nil {
			continue
		}
		if i%2 == 0 {
			even++
		} else {
			odd++
		}
	}
	if even < 190 || odd > 10 {
		t.Errorf("%d of 200 keys with a hit are left, and %d of 200 without", even, odd)
	}
}

// A key that comes back within n evictions goes to the main queue, where new keys do not displace it. A key that comes
// back later is a new key.
func TestGhosts(t *testing.T) {
	const n, some = 10_000, 1000
	s, e := newFixed(n, nil), fixed()
	defer s.Close()
	for i := range 4 * n { // the first 3n keys are evicted
		s.Set(fixedKey(i), e)
	}
	for i := range some {
		s.Set(fixedKey(n+i*(n-some)/some), e) // evicted n to 2n evictions ago
	}
	for i := range some {
		s.Set(fixedKey(2*n+2*some+i*(n-2*some)/some), e) // not as long ago
	}
	for i := range n { // all but the main queue
		s.Set(fixedKey(5*n+i), e)
	}
	last, before := 0, 0
	for key := range contents(s) {
		switch {
		case key >= fixedKey(n) && key < fixedKey(2*n):
			before++
		case key >= fixedKey(2*n) && key < fixedKey(3*n):
			last++
		}
	}
	if before > 1 || last < some*9/10 {
		t.Errorf("of %d keys that came back in time, %d count as known; of %d that came back late %d", some, last, some, before)
	}
}

// A key with a new value stays in the main queue.
func TestOwnedReplaceKeepsQueue(t *testing.T) {
	const n = 1000
	s := newFixed(n, nil)
	defer s.Close()
	for i := range n / 2 {
		s.Set(fixedKey(i), fixed())
		s.Get(fixedKey(i))
	}
	scan := func(from int) {
		for i := range 2 * n {
			s.Set(fixedKey(from+i), fixed())
		}
	}
	scan(n) // the hits are spent by now
	var used []string
	for key := range contents(s) {
		if key < fixedKey(n/2) {
			used = append(used, key)
			s.Set(key, fixed())
		}
	}
	scan(3 * n)
	left := contents(s)
	for _, key := range used {
		if left[key] == nil {
			t.Errorf("%s is gone after a new value and a scan", key)
		}
	}
	if len(used) < n/2*9/10 {
		t.Errorf("%d of %d keys in use were left after the first scan", len(used), n/2)
	}
}
