package codec

import (
	"bytes"
	"testing"
)

// TestAnswers checks that parts come back complete and in order, that parts which do not fit are marked as
// left out, and that the frame stays within its bound.
func TestAnswers(t *testing.T) {
	parts := NewAnswers(4)
	big, huge := bytes.Repeat([]byte{1}, MaxAnswers/2), bytes.Repeat([]byte{2}, MaxAnswers)
	list := []Response{
		{Status: StatusValue, Incarnation: 9, Flags: FlagTagged, Tags: []uint32{1, 2}, Etag: 5, Value: []byte("a")},
		{Status: StatusValue, Value: huge},
		{Status: StatusNotFound, Incarnation: 8},
		{Status: StatusValue, Incarnation: 7, Value: big},
		{Status: StatusValue, Value: big},
		{Status: StatusPending},
		{Status: StatusMoved, View: 4, Owner: []byte("n")},
	}
	var want []Response
	for i, r := range list {
		fits := i != 1 && i != 4
		if parts.Add(&r) != fits {
			t.Errorf("part %d fits: %v", i, !fits)
		}
		if r.Value == nil != (list[i].Value == nil) {
			t.Errorf("part %d is changed", i)
		}
		if !fits {
			r = Response{Status: StatusLeftOut}
		}
		want = append(want, r)
	}
	if parts.Len() != len(list) {
		t.Errorf("%d parts", parts.Len())
	}
	answer := Response{ID: 3, Status: StatusMany, Many: parts}
	frame := AppendResponse(nil, &answer)
	if n := len(frame); n > answer.ValueSize()+FrameOverhead || answer.ValueSize() > MaxAnswers+FrameOverhead {
		t.Errorf("a frame of %d bytes, ValueSize is %d", n, answer.ValueSize())
	}
	_, id, b := body(t, frame)
	var got, part Response
	if err := DecodeResponse(&got, id, b); err != nil || got.Status != StatusMany {
		t.Fatalf("%+v, %v", got.Status, err)
	}
	rest := got.Value
	for i := range want {
		var err error
		if rest, err = NextAnswer(&part, rest); err != nil || !sameResponse(part, want[i]) {
			t.Errorf("part %d: %+v, %v", i, part, err)
		}
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes are left", len(rest))
	}
	if _, err := NextAnswer(&part, rest); err == nil {
		t.Error("a part of nothing")
	}
}

// TestAnswersBounded checks that every connection accepts the frame, however many parts do not fit.
func TestAnswersBounded(t *testing.T) {
	const least = 1 << 20 // the smallest limit of a connection
	for _, size := range []int{0, 400, 600, 5000, MaxAnswers} {
		parts := NewAnswers(MaxKeysPerGet)
		for range MaxKeysPerGet {
			parts.Add(&Response{Status: StatusValue, Value: make([]byte, size)})
		}
		if n := len(AppendResponse(nil, &Response{Status: StatusMany, Many: parts})); n > MaxAnswers+MaxKeysPerGet*24+FrameOverhead || n > least {
			t.Errorf("values of %d bytes: %d bytes", size, n)
		}
	}
}

func TestManyRefused(t *testing.T) {
	good := func() []byte {
		_, _, b := body(t, AppendRequest(nil, &Request{Kind: KindGetMany, Many: []Wanted{{Key: []byte("k"), Have: 3}}}))
		return b
	}
	mode := len(good()) - len("k") - 1 - 8 - 1 - 1 - 2
	var r Request
	if err := DecodeRequest(&r, KindGetMany, 1, good()); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]int{"mode": mode, "whether there is a copy": mode + 3} {
		b := good()
		b[at] = 9
		if err := DecodeRequest(&r, KindGetMany, 1, b); name == "mode" {
			wantErr(t, err, ErrUnsupported)
		} else {
			wantErr(t, err, ErrFrame)
		}
		if b[at] = 1; DecodeRequest(&r, KindGetMany, 1, b) != nil {
			t.Errorf("%s is not at %d", name, at)
		}
	}
}
