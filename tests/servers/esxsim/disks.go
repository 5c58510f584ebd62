package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// What a host does with disks and the simulator leaves out: disks have a size and a descriptor, copies keep both, a
// disk grows, the browser tells the capacity. A child disk starts as its parent, grows as little as on a host (not at
// all), and is unreadable without its parent, though its bytes lie in a file of its own here.

type step func(m *simulator.Method) (types.AnyType, types.BaseMethodFault)
type after func(m *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault)

var instead = map[string]step{"CopyVirtualDisk_Task": copyDisk, "ExtendVirtualDisk_Task": extend, "RemoveSnapshot_Task": unsnapped}

var afterwards = map[string]after{
	"CreateVM_Task":                  machineCreated,
	"CreateVirtualDisk_Task":         created,
	"MoveVirtualDisk_Task":           moved,
	"ReconfigVM_Task":                reconfigured,
	"RelocateVM_Task":                relocated,
	"CreateSnapshot_Task":            snapped,
	"RevertToSnapshot_Task":          reverted,
	"SearchDatastore_Task":           searched,
	"SearchDatastoreSubFolders_Task": searched,
}

const sector = 512

var parentHint = regexp.MustCompile(`(?m)^parentFileNameHint="(.*)"$`)

var extent = regexp.MustCompile(`(?m)^RW (\d+) `)

// local is the file behind "[ds] a/b.vmdk", or "".
func local(name string) string {
	parts := strings.SplitN(strings.TrimPrefix(name, "["), "] ", 2)
	for _, e := range simulator.Map.All("Datastore") {
		if d := e.(*simulator.Datastore); len(parts) == 2 && d.Name == parts[0] {
			return filepath.Join(d.Info.GetDatastoreInfo().Url, parts[1])
		}
	}
	return ""
}

// capacity reads the size of a disk from its descriptor, in KiB; 0 when there is none.
func capacity(path string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	found := extent.FindSubmatch(text)
	if found == nil {
		return 0
	}
	sectors, _ := strconv.ParseInt(string(found[1]), 10, 64)
	return sectors * sector / 1024
}

// resize writes the descriptor of a disk of so many KiB and makes its extent so long.
func resize(path string, kib int64) error { return describe(path, kib, "") }

// describe writes the descriptor of a disk with a parent ("": none) and makes its extent so long.
func describe(path string, kib int64, parent string) error {
	flat := flatOf(path)
	if err := os.Truncate(flat, kib*1024); err != nil {
		return err
	}
	cid, hint := "ffffffff", ""
	if parent != "" {
		cid, hint = "fffffffe", fmt.Sprintf("parentFileNameHint=\"%s\"\n", parent)
	}
	text := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=%s\ncreateType=\"vmfs\"\n%s\n"+
		"# Extent description\nRW %d VMFS \"%s\"\n\n# The Disk Data Base\nddb.virtualHWVersion = \"13\"\n",
		cid, hint, kib*1024/sector, filepath.Base(flat))
	return os.WriteFile(path, []byte(text), 0o600)
}

// parentOf is the file that a child disk stands on, "" for a disk that stands alone.
func parentOf(path string) string {
	text, _ := os.ReadFile(path)
	if found := parentHint.FindSubmatch(text); found != nil {
		return string(found[1])
	}
	return ""
}

// chainWhole says whether the disk and all that it stands on are there.
func chainWhole(path string) bool {
	for path != "" {
		if capacity(path) == 0 {
			return false
		}
		path = parentOf(path)
	}
	return true
}

// sparse copies a file and leaves its holes out.
func sparse(from, to string) error {
	return exec.Command("cp", "--sparse=always", "--reflink=auto", from, to).Run()
}

// copyDisk makes a disk that stands alone, whatever its source stands on.
func copyDisk(m *simulator.Method) (types.AnyType, types.BaseMethodFault) {
	req := m.Body.(*types.CopyVirtualDisk_Task)
	from, to := local(req.SourceName), local(req.DestName)
	if _, err := os.Stat(to); err == nil {
		return nil, &types.FileAlreadyExists{FileFault: types.FileFault{File: req.DestName}}
	}
	if !chainWhole(from) {
		return nil, &types.FileNotFound{FileFault: types.FileFault{File: req.SourceName}}
	}
	if err := sparse(flatOf(from), flatOf(to)); err != nil {
		return nil, &types.CannotCreateFile{FileFault: types.FileFault{File: req.DestName}}
	}
	if err := resize(to, capacity(from)); err != nil {
		return nil, &types.CannotCreateFile{FileFault: types.FileFault{File: req.DestName}}
	}
	return nil, nil
}

// moved lets the descriptor name its extent again.
func moved(m *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault) {
	path := local(m.Body.(*types.MoveVirtualDisk_Task).DestName)
	if err := describe(path, capacity(path), parentOf(path)); err != nil {
		return nil, &types.CannotAccessFile{}
	}
	return result, nil
}

func machineCreated(m *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault) {
	ref, ok := result.(types.ManagedObjectReference)
	if !ok {
		return result, nil
	}
	if _, fault := diskChanges(m.Body.(*types.CreateVM_Task).Config.DeviceChange, ref); fault != nil {
		return nil, fault
	}
	settled(result)
	return result, nil
}

// diskChanges gives disks that were made their size and their parent's content, and tells those that were there theirs.
func diskChanges(changes []types.BaseVirtualDeviceConfigSpec, vm types.ManagedObjectReference) (types.AnyType, types.BaseMethodFault) {
	for _, change := range changes {
		spec := change.GetVirtualDeviceConfigSpec()
		disk, ok := spec.Device.(*types.VirtualDisk)
		if !ok || spec.Operation != types.VirtualDeviceConfigSpecOperationAdd {
			continue
		}
		path := fileOf(disk)
		if spec.FileOperation != types.VirtualDeviceConfigSpecFileOperationCreate {
			tellCapacity(vm, path)
			continue
		}
		kib, parent := disk.CapacityInKB, ""
		if b, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok && b.Parent != nil {
			parent = local(b.Parent.FileName)
			if !chainWhole(parent) || sparse(flatOf(parent), flatOf(path)) != nil {
				return nil, &types.FileNotFound{FileFault: types.FileFault{File: b.Parent.FileName}}
			}
			kib = capacity(parent)
		}
		if err := describe(path, kib, parent); err != nil {
			return nil, &types.CannotCreateFile{}
		}
		tellCapacity(vm, path)
	}
	return nil, nil
}

func tellCapacity(ref types.ManagedObjectReference, path string) {
	if vm, ok := simulator.Map.Get(ref).(*simulator.VirtualMachine); ok {
		for _, each := range disksOf(vm) {
			if kib := capacity(path); kib > 0 && fileOf(each) == path {
				each.CapacityInKB, each.CapacityInBytes = kib, kib*1024
			}
		}
	}
}

func created(m *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault) {
	req := m.Body.(*types.CreateVirtualDisk_Task)
	spec, ok := req.Spec.(*types.FileBackedVirtualDiskSpec)
	if !ok {
		return nil, &types.InvalidArgument{InvalidProperty: "spec"}
	}
	if err := resize(local(req.Name), spec.CapacityKb); err != nil {
		return nil, &types.CannotCreateFile{}
	}
	return result, nil
}

func extend(m *simulator.Method) (types.AnyType, types.BaseMethodFault) {
	req := m.Body.(*types.ExtendVirtualDisk_Task)
	path := local(req.Name)
	now := capacity(path)
	if now == 0 {
		return nil, &types.FileNotFound{FileFault: types.FileFault{File: req.Name}}
	}
	if parentOf(path) != "" {
		return nil, &types.NotSupported{}
	}
	if req.NewCapacityKb < now {
		return nil, &types.InvalidArgument{InvalidProperty: "newCapacityKb"}
	}
	if err := resize(path, req.NewCapacityKb); err != nil {
		return nil, &types.CannotAccessFile{}
	}
	return nil, nil
}

// reconfigured grows the disks that were edited.
func reconfigured(m *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault) {
	if _, fault := diskChanges(m.Body.(*types.ReconfigVM_Task).Spec.DeviceChange, m.This); fault != nil {
		return nil, fault
	}
	for _, change := range m.Body.(*types.ReconfigVM_Task).Spec.DeviceChange {
		spec := change.GetVirtualDeviceConfigSpec()
		disk, ok := spec.Device.(*types.VirtualDisk)
		if !ok || spec.Operation != types.VirtualDeviceConfigSpecOperationEdit {
			continue
		}
		file := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo().FileName
		path := local(file)
		if disk.CapacityInKB > capacity(path) {
			if parentOf(path) != "" {
				return nil, &types.InvalidDeviceSpec{}
			}
			if err := resize(path, disk.CapacityInKB); err != nil {
				return nil, &types.CannotAccessFile{}
			}
		}
	}
	return result, nil
}

// searched fills in what the browser was asked of disks.
func searched(_ *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault) {
	var found []types.HostDatastoreBrowserSearchResults
	switch r := result.(type) {
	case types.ArrayOfHostDatastoreBrowserSearchResults:
		found = r.HostDatastoreBrowserSearchResults
	case types.HostDatastoreBrowserSearchResults:
		found = []types.HostDatastoreBrowserSearchResults{r}
	}
	for _, folder := range found {
		for _, file := range folder.File {
			if disk, ok := file.(*types.VmDiskFileInfo); ok {
				disk.CapacityKb = capacity(local(strings.TrimSuffix(folder.FolderPath, "/") + "/" + disk.Path))
			}
		}
	}
	return result, nil
}

// folder demands a session or the password, as a host does before it serves files.
func (f *front) folder(w http.ResponseWriter, r *http.Request) {
	name, password, basic := r.BasicAuth()
	if !f.alive(r) && !(basic && name == f.user && password == f.password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	ordered, _ := f.take(r.Method + " /folder")
	switch ordered {
	case "":
		f.inner.ServeHTTP(w, r)
	case "http":
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		panic(http.ErrAbortHandler)
	}
}
