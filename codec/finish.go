package codec

import (
	"reflect"
	"sync"
	"time"
)

// A finisher adjusts a decoded value, which many callers will share, before any caller gets it:
//
//   - It cuts the capacity of slices to their length. Otherwise two callers that append to a shared slice
//     would write to the same memory.
//   - With utc, it converts times to UTC. MessagePack does not carry a zone, and the decoder makes all times
//     local.
//
// It does not walk types that contain neither.
type finisher struct {
	shapes *shapes
	utc    bool
	needed sync.Map // by type: whether values of it are walked
}

// needs reports whether values of the type must be walked.
func (f *finisher) needs(t reflect.Type) bool {
	if x, ok := f.needed.Load(t); ok {
		return x.(bool)
	}
	x := f.look(t, map[reflect.Type]bool{})
	f.needed.Store(t, x)
	return x
}

func (f *finisher) look(t reflect.Type, open map[reflect.Type]bool) bool {
	if open[t] {
		return false // the other parts of the type decide
	}
	open[t] = true
	s := f.shapes.get(t)
	if s.time {
		return f.utc
	}
	if s.custom {
		return false
	}
	switch s.kind {
	case reflect.Slice, reflect.Interface:
		return true
	case reflect.Pointer, reflect.Array:
		return f.look(t.Elem(), open)
	case reflect.Map:
		return f.look(t.Key(), open) || f.look(t.Elem(), open)
	case reflect.Struct:
		for _, i := range s.fields {
			if f.look(t.Field(i).Type, open) {
				return true
			}
		}
	}
	return false
}

// finish adjusts v, which must be settable.
func (f *finisher) finish(v reflect.Value) {
	if !v.CanSet() || !f.needs(v.Type()) {
		return
	}
	switch s := f.shapes.get(v.Type()); s.kind {
	case reflect.Pointer:
		if !v.IsNil() {
			f.finish(v.Elem())
		}
	case reflect.Interface:
		f.finishAny(v)
	case reflect.Slice:
		v.SetCap(v.Len())
		f.finishEach(v)
	case reflect.Array:
		f.finishEach(v)
	case reflect.Map:
		f.finishMap(v)
	case reflect.Struct:
		if s.time {
			t := v.Addr().Interface().(*time.Time)
			*t = t.UTC()
			return
		}
		for _, i := range s.fields {
			f.finish(v.Field(i))
		}
	}
}

func (f *finisher) finishEach(v reflect.Value) {
	if !f.needs(v.Type().Elem()) {
		return
	}
	for i := range v.Len() {
		f.finish(v.Index(i))
	}
}

// finishAny adjusts the value that an interface holds, and replaces it if it cannot be changed in place.
func (f *finisher) finishAny(v reflect.Value) {
	if v.IsNil() {
		return
	}
	switch e := v.Elem(); e.Kind() {
	case reflect.Map:
		f.finishMap(e)
	case reflect.Pointer:
		f.finish(e.Elem())
	case reflect.Slice, reflect.Struct, reflect.Array:
		if f.needs(e.Type()) {
			v.Set(f.finished(e))
		}
	}
}

// finished returns a finished copy of v.
func (f *finisher) finished(v reflect.Value) reflect.Value {
	own := reflect.New(v.Type()).Elem()
	own.Set(v)
	f.finish(own)
	return own
}

// finishMap adjusts a map. It replaces elements within the map. If keys change, as times do, it clears the
// map and fills it again.
func (f *finisher) finishMap(v reflect.Value) {
	t := v.Type()
	keys, elems := f.utc && t.Key().Kind() != reflect.String && f.needs(t.Key()), f.needs(t.Elem())
	if v.IsNil() || !keys && !elems {
		return
	}
	if !keys {
		for it := v.MapRange(); it.Next(); {
			v.SetMapIndex(it.Key(), f.finished(it.Value()))
		}
		return
	}
	type pair struct{ key, elem reflect.Value }
	pairs := make([]pair, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		pairs = append(pairs, pair{f.finished(it.Key()), f.finished(it.Value())})
	}
	v.Clear()
	for _, p := range pairs {
		v.SetMapIndex(p.key, p.elem)
	}
}
