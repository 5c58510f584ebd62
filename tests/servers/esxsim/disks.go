package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// What a host does with disks and the simulator leaves out: disks have a size and a descriptor, copies keep both, a
// disk grows, the browser tells the capacity.

type step func(m *simulator.Method) (types.AnyType, types.BaseMethodFault)
type after func(m *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault)

var instead = map[string]step{"ExtendVirtualDisk_Task": extend}

var afterwards = map[string]after{
	"CreateVirtualDisk_Task":         created,
	"ReconfigVM_Task":                reconfigured,
	"SearchDatastore_Task":           searched,
	"SearchDatastoreSubFolders_Task": searched,
}

const sector = 512

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
func resize(path string, kib int64) error {
	flat := strings.TrimSuffix(path, ".vmdk") + "-flat.vmdk"
	if err := os.Truncate(flat, kib*1024); err != nil {
		return err
	}
	text := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\n"+
		"# Extent description\nRW %d VMFS \"%s\"\n\n# The Disk Data Base\nddb.virtualHWVersion = \"13\"\n",
		kib*1024/sector, filepath.Base(flat))
	return os.WriteFile(path, []byte(text), 0o600)
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
	for _, change := range m.Body.(*types.ReconfigVM_Task).Spec.DeviceChange {
		spec := change.GetVirtualDeviceConfigSpec()
		disk, ok := spec.Device.(*types.VirtualDisk)
		if !ok || spec.Operation != types.VirtualDeviceConfigSpecOperationEdit {
			continue
		}
		file := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo().FileName
		path := local(file)
		if disk.CapacityInKB > capacity(path) {
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
