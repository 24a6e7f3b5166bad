package codec

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Codec turns values into bytes and back. It is safe for concurrent use.
type Codec[V any] interface {
	// Name is part of a namespace's fingerprint: two codecs that cannot read each
	// other's bytes have different names.
	Name() string
	// Append appends the encoding of v to dst and returns the extended slice. It keeps
	// neither.
	Append(dst []byte, v V) ([]byte, error)
	// Decode returns the value whose encoding is src. src is borrowed: it must not be
	// kept or changed. It may come off the wire and be hostile: Decode returns an error
	// then, and allocates no more than in proportion to src.
	Decode(src []byte) (V, error)
}

// ErrValue is wrapped by every error that bytes which are no valid value cause.
var ErrValue = errors.New("malformed value")

func badValue(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrValue, fmt.Sprintf(format, args...))
}

// Raw returns a codec for bytes and strings as they are. Decode copies.
func Raw[V ~[]byte | ~string]() Codec[V] { return raw[V]{} }

type raw[V ~[]byte | ~string] struct{}

func (raw[V]) Name() string                           { return "raw" }
func (raw[V]) Append(dst []byte, v V) ([]byte, error) { return append(dst, v...), nil }
func (raw[V]) Decode(src []byte) (V, error)           { return V(append([]byte(nil), src...)), nil }

// Schema describes V's type as far as it decides what an encoding means: kinds, field
// names and tags, in order. It is the same in every build of the same type, and does
// not hold the type's own name: what is renamed stays readable.
func Schema[V any]() string {
	var b strings.Builder
	describe(&b, reflect.TypeFor[V](), nil)
	return b.String()
}

// SchemaHash is a 64-bit hash of Schema.
func SchemaHash[V any]() uint64 { return xxhash.Sum64String(Schema[V]()) }

// describe appends t. open holds the types around it, so that recursive types end.
func describe(b *strings.Builder, t reflect.Type, open []reflect.Type) {
	for i, o := range open {
		if o == t {
			fmt.Fprintf(b, "^%d", len(open)-i)
			return
		}
	}
	open = append(open, t)
	switch t.Kind() {
	case reflect.Pointer:
		b.WriteByte('*')
		describe(b, t.Elem(), open)
	case reflect.Slice:
		b.WriteString("[]")
		describe(b, t.Elem(), open)
	case reflect.Array:
		fmt.Fprintf(b, "[%d]", t.Len())
		describe(b, t.Elem(), open)
	case reflect.Map:
		b.WriteString("map[")
		describe(b, t.Key(), open)
		b.WriteByte(']')
		describe(b, t.Elem(), open)
	case reflect.Struct:
		if t.NumField() > 0 && t.PkgPath() != "" && !anyExported(t) {
			b.WriteString(t.String()) // opaque, as time.Time is: it encodes itself
			return
		}
		b.WriteByte('{')
		for f := range t.Fields() {
			if !f.IsExported() && !f.Anonymous {
				continue
			}
			if f.Anonymous {
				b.WriteByte('+')
			}
			fmt.Fprintf(b, "%s", f.Name)
			for _, tag := range []string{"msgpack", "json"} {
				if v, ok := f.Tag.Lookup(tag); ok {
					fmt.Fprintf(b, " %s:%q", tag, v)
				}
			}
			b.WriteByte(' ')
			describe(b, f.Type, open)
			b.WriteByte(';')
		}
		b.WriteByte('}')
	case reflect.Interface:
		b.WriteString("interface")
	default:
		b.WriteString(t.Kind().String())
	}
}

func anyExported(t reflect.Type) bool {
	for f := range t.Fields() {
		if f.IsExported() || f.Anonymous {
			return true
		}
	}
	return false
}
