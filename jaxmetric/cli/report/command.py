"""`jaxmetric report`: everything that is known of a run, on one page."""

from jaxmetric.cli import calibration, configs, evaluate, folders, summary
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.paired import reporting, runs
from jaxmetric.cli.records import read_records
from jaxmetric.cli.report.gather import gather, read_sweep
from jaxmetric.cli.report.page import REPORT, write_page
from jaxmetric.cli.run_options import ReportOptions
from jaxmetric.cli.split import split_data


def report(options: ReportOptions) -> None:
    """Run `jaxmetric report`.

    Raises:
      UsageError, CheckpointError, DataError: mistakes; nothing has been written.
    """
    if runs.is_paired(options.run):
        path = reporting.report(options.run)
        print(f"{path}: the report of {options.run}; open it in a browser")
        return
    encoder = evaluate.load_encoder(options.run)
    folder = encoder.folder
    config = configs.read_config(folder / folders.CONFIG, TrainOptions)
    split = split_data(config.data, encoder.shape, vocabulary=encoder.vocabulary)
    told = summary.read_summary(folder / folders.SUMMARY) or {}
    notes = [] if told else ["The run has not finished: this is how far it came."]
    sha256 = told.get("data", {}).get("sha256")
    if sha256 not in (None, split.sha256):
        notes.append("The data has changed since the run was trained.")
    facts = gather(
        folder.absolute(),
        config=configs.to_mapping(config),
        summary=told,
        records=read_records(folder / folders.METRICS),
        held_out=split.held_out,
        embeddings=encoder.embed(split.held_out.inputs),
        sweep=read_sweep(folder, told),
        notes=notes,
    )
    kept = calibration.read_calibration(folder)
    # Another encoder has other distances.
    if kept is not None and kept.parameters_sha256 == encoder.fingerprint:
        facts = facts._replace(calibrated=(kept.threshold, kept.wanted))
    path = folder / REPORT
    write_page(path, facts, split.held_out.inputs)
    print(f"{path}: the report of {folder}; open it in a browser")
