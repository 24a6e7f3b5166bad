package codec

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"time"
)

// TestFastPathOfParts checks that the fast path of NextAnswer takes every plain value, and reads it as the other path does.
func TestFastPathOfParts(t *testing.T) {
	const top = maxMicros * time.Microsecond
	second := Response{Status: StatusValue, Value: []byte("next")}
	for _, c := range []struct {
		r    Response
		fast bool
	}{
		{Response{Status: StatusValue}, true},
		{Response{Status: StatusValue, Flags: FlagFilled, Incarnation: 1 << 63, Version: 300, Etag: 1<<63 + 7, Value: []byte("value")}, true},
		{Response{Status: StatusValue, Age: 130 * time.Microsecond, Soft: 5 * time.Second, Hard: time.Minute, Held: time.Millisecond}, true},
		{Response{Status: StatusValue, Soft: -130 * time.Microsecond, Value: make([]byte, 300)}, true},
		{Response{Status: StatusValue, Age: top - time.Microsecond, Hard: top - time.Microsecond, Held: top - time.Microsecond}, true},
		{Response{Status: StatusValue, Age: top}, false},
		{Response{Status: StatusValue, Hard: top}, false},
		{Response{Status: StatusValue, Soft: top}, false},
		{Response{Status: StatusValue, Held: top}, false},
		{Response{Status: StatusValue, Flags: FlagStale, Why: 2}, false},
		{Response{Status: StatusValue, Flags: FlagTagged, Tags: []uint32{1}}, false},
		{Response{Status: StatusNotFound}, false},
	} {
		for _, alone := range []bool{true, false} {
			var a Answers
			r := c.r
			a.Add(&r)
			if !alone {
				a.Add(&second)
			}
			parts := a.appendTo(nil)
			n, head := binary.Uvarint(parts)
			var fast, slow, any Response
			if err := DecodeResponse(&slow, 0, parts[head:head+int(n)]); err != nil {
				t.Fatal(err)
			}
			rest, ok := fast.next(parts)
			if ok != c.fast || ok && (!sameResponse(fast, slow) || len(rest) != len(parts)-head-int(n)) {
				t.Errorf("%+v: fast %v, %+v, want %+v", c.r, ok, fast, slow)
			}
			if rest, err := NextAnswer(&any, parts); err != nil || !sameResponse(any, slow) || len(rest) != len(parts)-head-int(n) {
				t.Errorf("%+v: %+v, %v", c.r, any, err)
			}
			for i := range int(n) - len(c.r.Value) { // what is cut short before the value is not one
				cut := append(binary.AppendUvarint(nil, uint64(i)), parts[head:head+i]...)
				if _, ok := fast.next(cut); ok {
					t.Errorf("%+v: %d bytes of %d are taken", c.r, i, n)
				}
			}
		}
	}
}

// TestNumbers checks that number agrees with binary.Uvarint.
func TestNumbers(t *testing.T) {
	for _, v := range []uint64{0, 1, 127, 128, 129, 255, 256, 16383, 16384, 1<<56 - 1, 1<<62 + 5} {
		b := append(binary.AppendUvarint(nil, v), 9)
		got, rest, ok := number(b)
		if got != v || !ok || !bytes.Equal(rest, []byte{9}) {
			t.Errorf("%d: %d, %x, %v", v, got, rest, ok)
		}
		if _, _, ok := number(b[:len(b)-2]); ok {
			t.Errorf("%d is read without its last byte", v)
		}
	}
	if _, _, ok := number(binary.AppendUvarint(nil, math.MaxUint64)); ok {
		t.Error("a number of ten bytes is left to the other path")
	}
}

// TestAnswersAtTheLimit checks that a part fits exactly up to MaxAnswers, first or after another one.
func TestAnswersAtTheLimit(t *testing.T) {
	head := len(appendAnswer(nil, &Response{Status: StatusValue}))
	value := make([]byte, MaxAnswers)
	for _, before := range []int{0, 1, 1000} { // bytes of an earlier part's value; 0: there is none
		for over, fits := range map[int]bool{0: true, 1: false} {
			var a Answers
			left := MaxAnswers
			if before > 0 {
				a.Add(&Response{Status: StatusValue, Value: value[:before]})
				left -= head + before + partRoom
			}
			if got := a.Add(&Response{Status: StatusValue, Value: value[:left-head-partRoom+over]}); got != fits {
				t.Errorf("after %d bytes, a part that is %d too long fits: %v", before, over, got)
			}
			if fits && a.size != MaxAnswers {
				t.Errorf("after %d bytes: %d bytes, want %d", before, a.size, MaxAnswers)
			}
			if !fits && a.size > MaxAnswers-left+20 {
				t.Errorf("after %d bytes: what is left out takes %d", before, a.size)
			}
		}
	}
}

// TestAnswersReleased checks that large Answers do not go to the pool.
func TestAnswersReleased(t *testing.T) {
	for _, c := range []struct {
		parts, heads int
		pooled       bool
	}{{MaxKeysPerGet, 64 * MaxKeysPerGet, true}, {MaxKeysPerGet + 1, 10, false}, {10, 64*MaxKeysPerGet + 1, false}} {
		a := &Answers{parts: make([]part, 3, c.parts), heads: make([]byte, 3, c.heads)}
		if a.Release(); (a.Len() == 0) != c.pooled {
			t.Errorf("%+v: %d parts are left", c, a.Len())
		}
	}
}

// TestSizes checks bounds on sizes against what is written.
func TestSizes(t *testing.T) {
	if n := ManySize(7); n != 36 {
		t.Errorf("a key of 7 bytes takes %d", n)
	}
	key := bytes.Repeat([]byte("k"), 200)
	mark := Mark{Incarnation: math.MaxUint64, Seq: math.MaxUint64}
	one := len(AppendRequest(nil, &Request{Kind: KindGetMany, Many: []Wanted{{Key: key, Fence: mark, Have: 1}}}))
	if two := len(AppendRequest(nil, &Request{Kind: KindGetMany, Many: []Wanted{{Key: key, Fence: mark, Have: 1}, {Key: key, Fence: mark, Have: 1}}})); two-one != ManySize(len(key)) {
		t.Errorf("the longest entry takes %d bytes, the bound is %d", two-one, ManySize(len(key)))
	}
	if n := len(appendPushed(nil, []Pushed{{}})); n != 1+pushedLeast {
		t.Errorf("the shortest copy takes %d bytes, pushedLeast is %d", n-1, pushedLeast)
	}
	r := Request{Key: make([]byte, 3), Value: make([]byte, 5), Tags: []uint32{1, 2}, Many: []Wanted{{Key: make([]byte, 4)}}}
	if n := r.Size() - FrameOverhead; n != 3+5+8+33 {
		t.Errorf("the parts of a request take %d", n)
	}
	news := News{Positions: make([]Position, 1), Bases: make([]Base, 1), Invalidations: []Invalidation{{Names: [][]byte{[]byte("abc")}}}}
	if n := news.Size(); n != 141 {
		t.Errorf("news take %d", n)
	}
	p := Pushed{Key: make([]byte, 3), Value: make([]byte, 5), Tags: []uint32{1, 2}}
	if n := p.size(); n != 118 {
		t.Errorf("a copy takes %d", n)
	}
}
