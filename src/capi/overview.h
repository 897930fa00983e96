/**
 * DOC: vfio-display
 *
 * Shows what a virtual GPU shows: from the planes of a vfio device to the
 * console of an emulator. A host gives two tables of callbacks, one for the
 * device and one for its console, and says when to refresh:
 *
 *     int mode = vfio_dpy_probe(&device_ops, device, &error);
 *     VfioDpy *dpy = vfio_dpy_new(mode, &device_ops, device, "gpu0",
 *                                 &console_ops, console, NULL, &error);
 *     vfio_dpy_refresh(dpy, true);    (again and again)
 *     vfio_dpy_free(dpy);
 *
 * examples/screenshot.c is a whole program. What must be so for all functions:
 *
 * Errors: a function that fails returns NULL, false, or a negative errno, and
 * writes nothing to where its results go. If it has a parameter @error that is
 * not NULL, *@error is then a message, to be freed with g_free(); otherwise it
 * is NULL.
 *
 * Versions: a struct that the host fills in and that may grow begins with its
 * size. A host that was compiled with an older header has a smaller one: what
 * it does not know is NULL or zero. What the library does not know of a larger
 * one is left alone.
 *
 * Threads: each function says in its "Context" who may call it. The display's
 * thread is the one that runs the GLib default main context, or whoever holds
 * the lock under which that runs, such as QEMU's big lock.
 *
 * Memory: pointers are valid, and not NULL unless that is said to be fine.
 * Who gets something says how it is freed; everything else is the callee's
 * for the call only.
 */
