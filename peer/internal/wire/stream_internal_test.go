package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestFramesInOrder checks that frames of every size come out whole and in order, however the bytes arrive, also when the
// buffer ends in the middle of one; and that the buffer is not larger than needed, and shrinks in the end.
func TestFramesInOrder(t *testing.T) {
	sizes := []int{0, 1, 40 << 10, 40 << 10, 40 << 10, 3, readBuffer, 5 * readBuffer, 2, readBuffer - codec.FrameHeader - codec.FrameMin, 7}
	var stream []byte
	for i, n := range sizes {
		stream = append(stream, wiretest.Frame(codec.KindPong, uint64(i), string(bytes.Repeat([]byte{byte(i)}, n)))...)
	}
	for _, piece := range []int{100, 1000, 40 << 10, readBuffer, len(stream)} {
		f := newFrameReader(&bytesConn{rest: stream, piece: piece}, 8*readBuffer)
		seen := 0
		err := eachFrame(f, func(frame []byte) error {
			_, id, body, err := codec.FrameKind(frame)
			if want := bytes.Repeat([]byte{byte(seen)}, sizes[seen]); id != uint64(seen) || !bytes.Equal(body, want) {
				t.Errorf("pieces of %d: frame %d has id %d and %d bytes", piece, seen, id, len(body))
			}
			if most := max(readBuffer, codec.FrameHeader+codec.FrameMin+5*readBuffer); len(f.buf) > most {
				t.Errorf("pieces of %d: a buffer of %d bytes", piece, len(f.buf))
			}
			seen++
			return err
		})
		if err != io.EOF || seen != len(sizes) || len(f.buf) != readBuffer {
			t.Errorf("pieces of %d: %d frames, %v, a buffer of %d bytes", piece, seen, err, len(f.buf))
		}
	}
}

// TestWhereAStreamEnds checks that the end of a connection is told apart from one in the middle of a frame, and that a bad
// length is refused as soon as it is there.
func TestWhereAStreamEnds(t *testing.T) {
	whole := wiretest.Frame(codec.KindPong, 1, "body")
	for _, c := range []struct {
		stream []byte
		want   error
	}{
		{nil, io.EOF}, {whole, io.EOF}, {append(bytes.Clone(whole), whole...), io.EOF},
		{whole[:1], errCut}, {whole[:codec.FrameHeader], errCut}, {whole[:len(whole)-1], errCut}, {append(bytes.Clone(whole), 0), errCut},
		{[]byte{0x7f, 0, 0, 0}, codec.ErrFrame}, {[]byte{0, 0, 0, 0}, codec.ErrFrame},
	} {
		f := newFrameReader(&bytesConn{rest: c.stream, piece: 5}, 1<<20)
		if err := eachFrame(f, func([]byte) error { return nil }); !errors.Is(err, c.want) {
			t.Errorf("%x ends with %v, want %v", c.stream, err, c.want)
		}
	}
}
