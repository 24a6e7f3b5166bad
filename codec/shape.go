package codec

import (
	"reflect"
	"strings"
	"sync"
)

// A shape caches what walks over values must know about a type, so that they use reflection only once per
// type.
type shape struct {
	kind   reflect.Kind
	time   bool  // time.Time
	custom bool  // it encodes itself
	flat   bool  // it contains no pointer, slice, map, string or interface
	fields []int // of a struct: the encoded ones, including embedded structs
	all    []int // of a struct: the ones that are not flat
}

// shapes caches the shapes of a codec's types, one entry per type. Safe for concurrent use.
type shapes struct {
	tag string // of fields; "-" leaves one out
	of  sync.Map
}

func (s *shapes) get(t reflect.Type) *shape {
	if x, ok := s.of.Load(t); ok {
		return x.(*shape)
	}
	x := &shape{kind: t.Kind(), time: t == timeType, flat: isFlat(t)}
	x.custom = !x.time && t.Kind() != reflect.Interface && encodesItself(t)
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			f := t.Field(i)
			if !isFlat(f.Type) {
				x.all = append(x.all, i)
			}
			if name, _, _ := strings.Cut(f.Tag.Get(s.tag), ","); name != "-" && (f.IsExported() || f.Anonymous) {
				x.fields = append(x.fields, i)
			}
		}
	}
	s.of.Store(t, x)
	return x
}

// isFlat reports whether a value of the type refers to no other memory. A time counts as flat, because its
// zone is shared.
func isFlat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return false
	case reflect.Array:
		return t.Len() == 0 || isFlat(t.Elem())
	case reflect.Struct:
		if t == timeType {
			return true
		}
		for f := range t.Fields() {
			if !isFlat(f.Type) {
				return false
			}
		}
	}
	return true
}
