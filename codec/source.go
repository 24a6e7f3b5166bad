package codec

import "io"

// source is what the decoder reads from: an io.Reader and io.ByteScanner of a slice.
//
// It does not let the first byte of a time's contents be read by ReadByte, as a code.
// msgpack/v5 v5.3.6 does that where it expects a map: it skips an extension's header and
// takes the contents, which the check has not seen, for a map. A type that decodes itself
// can expect a map anywhere, so the check alone cannot tell.
type source struct {
	b    []byte
	i    int
	exts []int // where contents of times begin, ascending
	next int   // the first of exts that is not before i
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if s.i >= len(s.b) && len(p) > 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b[s.i:])
	s.i += n
	return n, nil
}

// ReadByte implements io.ByteReader.
func (s *source) ReadByte() (byte, error) {
	if s.i >= len(s.b) {
		return 0, io.EOF
	}
	for s.next < len(s.exts) && s.exts[s.next] < s.i {
		s.next++
	}
	if s.next < len(s.exts) && s.exts[s.next] == s.i {
		return 0, badValue("an extension before byte %d where something else was due", s.i)
	}
	c := s.b[s.i]
	s.i++
	return c, nil
}

// UnreadByte implements io.ByteScanner.
func (s *source) UnreadByte() error {
	if s.i == 0 {
		return io.EOF
	}
	s.i--
	return nil
}
