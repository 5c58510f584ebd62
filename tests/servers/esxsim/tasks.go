package main

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"time"

	"fmt"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Objects that a TaskInfo's entity may name in the simulator, and that no client of a real host ever meets there.
const noEntity = "FileManager VirtualDiskManager VirtualMachineSnapshot HostDatastoreBrowser VcenterVStorageObjectManager"

// taskOf finds the task that the answer of a *_Task call names.
func taskOf(out string) *simulator.Task {
	const mark = `<returnval type="Task">`
	i := strings.Index(out, mark)
	if i < 0 {
		return nil
	}
	id := out[i+len(mark):]
	ref := types.ManagedObjectReference{Type: "Task", Value: id[:strings.Index(id, "<")]}
	t, ok := simulator.Map.Get(ref).(*simulator.Task)
	if !ok {
		return nil
	}
	if e := t.Info.Entity; e != nil && strings.Contains(noEntity, e.Type) {
		t.Info.Entity = nil
	}
	return t
}

// methodFault makes a fault of that name, with the references that some of them must have.
func methodFault(name string, obj, task types.ManagedObjectReference) types.BaseMethodFault {
	t, ok := types.TypeFunc()(name)
	if !ok {
		return &types.InvalidRequest{}
	}
	v := reflect.New(t)
	m, ok := v.Interface().(types.BaseMethodFault)
	if !ok {
		return &types.InvalidRequest{}
	}
	for field, ref := range map[string]types.ManagedObjectReference{"Object": obj, "Obj": obj, "Host": obj, "Task": task} {
		if f := v.Elem().FieldByName(field); f.IsValid() && f.Type() == reflect.TypeOf(ref) {
			f.Set(reflect.ValueOf(ref))
		}
	}
	return m
}

// later answers a *_Task call at once with a task of our own, and carries the call out after so much time.
func (f *front) later(w http.ResponseWriter, r *http.Request, m *simulator.Method, body []byte, d time.Duration, name string) {
	obj := simulator.Map.Get(m.This)
	if obj == nil {
		soapFault(w, m.This, "ManagedObjectNotFound")
		return
	}
	kind := strings.Replace(m.Name, "_Task", "Task", 1)
	t := simulator.CreateTask(obj, kind, func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		for i := 1; i <= 4; i++ {
			time.Sleep(d / 4)
			simulator.Map.Update(t, []types.PropertyChange{{Name: "info.progress", Val: int32(i * 20)}})
		}
		if name != "" {
			return nil, methodFault(name, m.This, t.Self)
		}
		return f.carryOut(r, m, body, t.Self)
	})
	if _, ok := obj.(mo.Entity); !ok {
		t.Info.Entity = nil
	}
	go t.Run()
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	fmt.Fprintf(w, head+`<%sResponse xmlns="urn:vim25"><returnval type="Task">%s</returnval></%sResponse>`+tail,
		m.Name, t.Self.Value, m.Name)
}

// carryOut lets the simulator do it, and ours what the simulator leaves out.
func (f *front) carryOut(r *http.Request, m *simulator.Method, body []byte, task types.ManagedObjectReference) (types.AnyType, types.BaseMethodFault) {
	result, fault := f.carried(r, m, body, task)
	if fault == nil && changing[m.Name] {
		versioned(m.This, result)
	}
	return result, fault
}

func (f *front) carried(r *http.Request, m *simulator.Method, body []byte, task types.ManagedObjectReference) (types.AnyType, types.BaseMethodFault) {
	if ours, ok := instead[m.Name]; ok {
		return ours(m)
	}
	rec := httptest.NewRecorder()
	f.pass(rec, r, body)
	out := rec.Body.String()
	if in := taskOf(out); in != nil {
		if in.Info.Error != nil {
			return nil, in.Info.Error.Fault
		}
		if also, ok := afterwards[m.Name]; ok {
			return also(m, in.Info.Result)
		}
		return in.Info.Result, nil
	}
	const mark = `Fault xmlns="urn:vim25" xsi:type="`
	if i := strings.Index(out, mark); i >= 0 {
		s := out[i+len(mark):]
		return nil, methodFault(s[:strings.Index(s, `"`)], m.This, task)
	}
	return nil, &types.RuntimeFault{}
}
