package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Leases as a host has them, in place of the simulator's, which throws away what is sent and knows no export: an import
// makes a machine whose disks are filled by POST of a stream-optimized VMDK; an export serves such a VMDK by GET. A lease
// becomes ready after a while, dies without progress, and blocks what would change its machine. Orders by /ctl/fault on
// "POST /nfc" and "GET /nfc": http, drop (taken, no answer), cut (broken off half-way), expire (the lease dies meanwhile).
type lease struct {
	*simulator.HttpNfcLease
	imports bool
	timer   *time.Timer
}

type leases struct {
	mu      sync.Mutex
	making  sync.Mutex // one import at a time makes its machine, so that it is known which one it is
	live    map[string]*lease
	seconds int
	number  int
}

// Calls that a host refuses while a lease holds the machine.
var blocked = map[string]bool{"PowerOnVM_Task": true, "Destroy_Task": true, "UnregisterVM": true, "ExportVm": true,
	"ReconfigVM_Task": true, "CreateSnapshot_Task": true}

func (l *leases) holds(vm types.ManagedObjectReference) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, each := range l.live {
		if each.Info.Entity == vm {
			return true
		}
	}
	return false
}

func (l *leases) of(ref types.ManagedObjectReference) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live[ref.Value]
}

// nfc answers calls on leases and those that make them. It says whether it answered.
func (f *front) nfc(w http.ResponseWriter, r *http.Request, m *simulator.Method, body []byte) bool {
	switch m.Name {
	case "ImportVApp":
		f.importVApp(w, r, m, body)
	case "ExportVm":
		f.exportVM(w, m)
	case "HttpNfcLeaseProgress", "HttpNfcLeaseComplete", "HttpNfcLeaseAbort":
		l := f.leases.of(m.This)
		if l == nil {
			soapFault(w, m.This, "ManagedObjectNotFound")
			return true
		}
		switch m.Name {
		case "HttpNfcLeaseProgress":
			l.timer.Reset(time.Duration(f.leases.seconds) * time.Second)
		case "HttpNfcLeaseComplete":
			f.end(l, types.HttpNfcLeaseStateDone)
		default:
			f.end(l, types.HttpNfcLeaseStateError)
		}
		reply(w, m.Name, "")
	default:
		return false
	}
	return true
}

func reply(w http.ResponseWriter, name, inner string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	fmt.Fprintf(w, head+`<%sResponse xmlns="urn:vim25">%s</%sResponse>`+tail, name, inner, name)
}

// begin makes a lease on a machine, with one URL for each of its disks.
func (f *front) begin(entity types.ManagedObjectReference, imports bool) *lease {
	f.leases.mu.Lock()
	defer f.leases.mu.Unlock()
	f.leases.number++
	ref := types.ManagedObjectReference{Type: "HttpNfcLease", Value: fmt.Sprintf("lease-%d", f.leases.number)}
	l := &lease{imports: imports, HttpNfcLease: &simulator.HttpNfcLease{HttpNfcLease: mo.HttpNfcLease{Self: ref,
		Mode: "pushOrGet", State: types.HttpNfcLeaseStateInitializing,
		Info: &types.HttpNfcLeaseInfo{Lease: ref, Entity: entity, LeaseTimeout: int32(f.leases.seconds)}}}}
	vm := simulator.Map.Get(entity).(*simulator.VirtualMachine)
	for n, disk := range disksOf(vm) {
		yes := true
		l.Info.DeviceUrl = append(l.Info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{
			Key:       fmt.Sprintf("/%s/VirtualLsiLogicController0:%d", entity.Value, n),
			ImportKey: fmt.Sprintf("/%s/VirtualLsiLogicController0:%d", vm.Name, n), Disk: &yes,
			Url: fmt.Sprintf("https://*/nfc/%s/disk-%d.vmdk", ref.Value, n), TargetId: fmt.Sprintf("disk-%d.vmdk", n)})
		l.Info.TotalDiskCapacityInKB += disk.CapacityInKB
	}
	simulator.Map.Put(l.HttpNfcLease)
	f.leases.live[ref.Value] = l
	l.timer = time.AfterFunc(time.Duration(f.leases.seconds)*time.Second, func() { f.end(l, types.HttpNfcLeaseStateError) })
	f.mu.Lock()
	wait := f.delays["*"]
	f.mu.Unlock()
	time.AfterFunc(wait, func() {
		if f.leases.of(ref) != nil {
			simulator.Map.Update(l.HttpNfcLease, []types.PropertyChange{{Name: "state", Val: types.HttpNfcLeaseStateReady}})
		}
	})
	return l
}

// end ends a lease; what an import that did not come to its end made goes with it.
func (f *front) end(l *lease, state types.HttpNfcLeaseState) {
	f.leases.mu.Lock()
	_, lives := f.leases.live[l.Self.Value]
	delete(f.leases.live, l.Self.Value)
	f.leases.mu.Unlock()
	if !lives {
		return
	}
	l.timer.Stop()
	if state == types.HttpNfcLeaseStateDone {
		simulator.Map.Update(l.HttpNfcLease, []types.PropertyChange{{Name: "state", Val: state}})
		return
	}
	simulator.Map.Remove(l.Self)
	if l.imports {
		f.inside(fmt.Sprintf(`<Destroy_Task xmlns="urn:vim25"><_this type="VirtualMachine">%s</_this></Destroy_Task>`,
			l.Info.Entity.Value))
	}
}

// inside asks the simulator in a session of our own, which no order of a test ends.
func (f *front) inside(call string) {
	f.leases.making.Lock()
	defer f.leases.making.Unlock()
	ask := func(text, cookie string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/sdk", strings.NewReader(head+text+tail))
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		rec := httptest.NewRecorder()
		f.inner.ServeHTTP(rec, r)
		return rec
	}
	login := ask(fmt.Sprintf(`<Login xmlns="urn:vim25"><_this type="SessionManager">%s</_this><userName>%s</userName>`+
		`<password>%s</password></Login>`, simulator.Map.SessionManager().Self.Value, f.user, f.password), "")
	ask(call, strings.SplitN(login.Header().Get("Set-Cookie"), ";", 2)[0])
}

func machines() map[types.ManagedObjectReference]bool {
	found := map[types.ManagedObjectReference]bool{}
	for _, each := range simulator.Map.All("VirtualMachine") {
		found[each.Reference()] = true
	}
	return found
}

func disksOf(vm *simulator.VirtualMachine) []*types.VirtualDisk {
	var found []*types.VirtualDisk
	for _, each := range vm.Config.Hardware.Device {
		if disk, ok := each.(*types.VirtualDisk); ok {
			found = append(found, disk)
		}
	}
	return found
}

func fileOf(disk *types.VirtualDisk) string {
	return local(disk.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo().FileName)
}

func flatOf(path string) string { return strings.TrimSuffix(path, ".vmdk") + "-flat.vmdk" }

func (f *front) importVApp(w http.ResponseWriter, r *http.Request, m *simulator.Method, body []byte) {
	f.leases.making.Lock()
	defer f.leases.making.Unlock()
	before, rec := machines(), httptest.NewRecorder()
	f.pass(rec, r, body)
	for ref := range machines() {
		if before[ref] {
			continue
		}
		spec, ok := m.Body.(*types.ImportVApp).Spec.(*types.VirtualMachineImportSpec)
		if ok {
			_, _ = diskChanges(spec.ConfigSpec.DeviceChange, ref)
		}
		l := f.begin(ref, true)
		reply(w, m.Name, fmt.Sprintf(`<returnval type="HttpNfcLease">%s</returnval>`, l.Self.Value))
		return
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

func (f *front) exportVM(w http.ResponseWriter, m *simulator.Method) {
	vm, ok := simulator.Map.Get(m.This).(*simulator.VirtualMachine)
	switch {
	case !ok:
		soapFault(w, m.This, "ManagedObjectNotFound")
	case vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff:
		soapFault(w, m.This, "InvalidPowerState")
	default:
		l := f.begin(m.This, false)
		reply(w, m.Name, fmt.Sprintf(`<returnval type="HttpNfcLease">%s</returnval>`, l.Self.Value))
	}
}

// disk finds lease and file behind /nfc/LEASE/disk-N.vmdk.
func (f *front) disk(path string) (*lease, string) {
	parts := strings.Split(strings.TrimPrefix(path, "/nfc/"), "/")
	if len(parts) != 2 {
		return nil, ""
	}
	l := f.leases.of(types.ManagedObjectReference{Type: "HttpNfcLease", Value: parts[0]})
	if l == nil || l.State != types.HttpNfcLeaseStateReady {
		return nil, ""
	}
	for n, each := range disksOf(simulator.Map.Get(l.Info.Entity).(*simulator.VirtualMachine)) {
		if parts[1] == fmt.Sprintf("disk-%d.vmdk", n) {
			return l, fileOf(each)
		}
	}
	return nil, ""
}

// files serves the URLs of leases, which need no session: who knows the lease may.
func (f *front) files(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodPut {
		method = http.MethodPost
	}
	ordered, delay := f.take(method + " /nfc")
	l, path := f.disk(r.URL.Path)
	switch {
	case ordered == "http":
		w.WriteHeader(http.StatusServiceUnavailable)
	case l == nil:
		http.NotFound(w, r)
	case method == http.MethodPost:
		f.receive(w, r, l, path, ordered, delay)
	case method == http.MethodGet:
		f.serve(w, l, path, ordered, delay)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (f *front) receive(w http.ResponseWriter, r *http.Request, l *lease, path, ordered string, delay time.Duration) {
	in, err := os.CreateTemp("", "nfc")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInsufficientStorage)
		return
	}
	defer os.Remove(in.Name())
	defer in.Close()
	if ordered == "cut" || ordered == "expire" {
		_, _ = io.CopyN(in, r.Body, r.ContentLength/2)
		half, _ := os.ReadFile(in.Name())
		_ = os.WriteFile(flatOf(path), half, 0o600)
		if ordered == "expire" {
			f.end(l, types.HttpNfcLeaseStateError)
		}
		panic(http.ErrAbortHandler)
	}
	if _, err := io.Copy(in, r.Body); err != nil {
		return
	}
	time.Sleep(delay)
	if f.leases.of(l.Self) == nil {
		panic(http.ErrAbortHandler) // it died while it was waited
	}
	kib := capacity(path)
	out, err := exec.Command("qemu-img", "convert", "-f", "vmdk", "-O", "raw", in.Name(), flatOf(path)).CombinedOutput()
	if err != nil {
		http.Error(w, string(out), http.StatusInternalServerError)
		return
	}
	if st, err := os.Stat(flatOf(path)); err == nil && st.Size() > kib*1024 {
		kib = st.Size() / 1024
	}
	_ = resize(path, kib)
	if ordered == "drop" {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusCreated)
}

func (f *front) serve(w http.ResponseWriter, l *lease, path, ordered string, delay time.Duration) {
	out, err := os.CreateTemp("", "nfc")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer os.Remove(out.Name())
	defer out.Close()
	time.Sleep(delay)
	if f.leases.of(l.Self) == nil || !chainWhole(path) {
		http.NotFound(w, nil)
		return
	}
	text, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized",
		flatOf(path), out.Name()).CombinedOutput()
	if err != nil {
		http.Error(w, string(text), http.StatusInternalServerError)
		return
	}
	src, err := os.Open(out.Name())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer src.Close()
	w.Header().Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush() // chunked, as hosts send it: nobody knows the length before the end
	if ordered == "cut" || ordered == "drop" || ordered == "expire" {
		st, _ := src.Stat()
		_, _ = io.CopyN(w, src, st.Size()/2)
		w.(http.Flusher).Flush()
		if ordered == "expire" {
			f.end(l, types.HttpNfcLeaseStateError)
		}
		panic(http.ErrAbortHandler)
	}
	_, _ = io.Copy(w, src)
}
