package codec

import (
	"reflect"
	"sync"
	"time"
)

// A finisher goes over a decoded value, which many callers will share, before anybody has it:
//
//   - Lists lose what capacity they have beyond their length: two callers that append to a shared one would
//     otherwise write to the same memory.
//   - With utc, times are in UTC. MessagePack does not carry a zone, and the decoder makes all times local.
//
// Types that have neither are not walked.
type finisher struct {
	shapes *shapes
	utc    bool
	needed sync.Map // by type: whether values of it are walked
}

// needs reports whether values of the type are walked.
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
		return false // what else is in it decides
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

// finish goes over v, which can be set.
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
		if v.Cap() > v.Len() {
			v.SetCap(v.Len())
		}
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

// finishAny goes over what an interface holds, which is replaced if it has to be another one.
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

// finishMap goes over a map. Elements are replaced in it; keys that change, as times do, make it be filled again.
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
